#!/usr/bin/env bash
# Trains CLIP on real emoji pictures and their names, on the CPU, and evaluates it on pictures it has never seen.
#
#   examples/quickstart.sh                  the built-in data
#   examples/quickstart.sh --data FOLDER    your own, with the emoji's small model: pictures with a .txt beside each, class folders, a CSV, tars
#   examples/quickstart.sh --epochs N       so many epochs, instead of those that ten minutes have room for (200 at most)
#
# TWINLENS_BUILD_DIR is the build folder (default build/release); the run goes to logs/quickstart, or, while another quickstart is at work
# there, to logs/quickstart.PID.
set -euo pipefail
# Relative paths are the caller's, in each part of a::b.
absolute() {
  local part out=""
  while IFS= read -r part; do
    case $part in /*) ;; *) part=$PWD/$part ;; esac
    out+=${out:+::}$part
  done <<<"${1//::/$'\n'}"
  printf '%s\n' "$out"
}
# Pictures of all parts of a::b, with * and {0..9}: files in a folder or a tar, or rows of a table. Nothing where nothing is there.
count_pictures() {
  local ends='\.(jpe?g|jpe|jfif|png|webp|bmp|gif|p[pgn]m|tga|psd)$' part file total=0 any=""
  local -a files
  while IFS= read -r part; do
    # The part with everything quoted but these patterns.
    eval "files=($(printf '%q' "$part" | sed 's/\\{\([0-9][0-9]*\.\.[0-9][0-9]*\)\\}/{\1}/g; s/\\\([*?]\)/\1/g'))"
    for file in "${files[@]}"; do
      if [ -d "$file" ]; then
        total=$((total + $(find -L "$file" -type f | grep -ciE "$ends" || true)))
      elif [ -f "$file" ]; then
        case $file in
          *.tar | *.tar.* | *.tgz) total=$((total + $(tar -tf "$file" | grep -ciE "$ends" || true))) ;;
          *) total=$((total + $(grep -c '' "$file") - 1)) ;;
        esac
      else
        continue
      fi
      any=1
    done
  done <<<"${1//::/$'\n'}"
  [ -z "$any" ] || echo "$total"
}
own_data="" epochs=""
while [ $# -gt 0 ]; do
  case $1 in
    --data) own_data=$(absolute "${2:?--data needs a folder}"); shift 2 ;;
    --epochs) epochs=${2:?--epochs needs a number}; shift 2 ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: unknown flag $1; quickstart.sh; use --data FOLDER or --epochs N" >&2; exit 2 ;;
  esac
done
case $epochs in *[!0-9]* | 0*) echo "error: '$epochs' is no number of epochs; --epochs; give 1 or more" >&2; exit 2 ;; esac
caller=$PWD
cd "$(dirname "$0")/.."
build=${TWINLENS_BUILD_DIR:-build/release}

cat <<TEXT
twinlens quickstart: builds the program, trains a small CLIP on $([ -n "$own_data" ] && echo "$own_data" || echo "5,728 emoji pictures of four vendors"),
then evaluates it and writes a report. About 10 minutes on 2 cores; packages that are missing are installed first.
TEXT
tests/packages.sh build
started=$SECONDS seconds=600
step() { printf '\n== %s  (%d:%02d)\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

step "1/4 build"
mkdir -p "$build"
# The CUDA half where TWINLENS_CUDA says so; otherwise as this folder was configured, at first without.
cuda=()
if [ -n "${TWINLENS_CUDA:-}" ] || [ ! -f "$build/CMakeCache.txt" ]; then cuda=("-DTWINLENS_CUDA=${TWINLENS_CUDA:-OFF}"); fi
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release "${cuda[@]}" -DTWINLENS_UNITY_BUILD=ON -DTWINLENS_BUILD_TESTS=OFF -DTWINLENS_BUILD_BENCH=OFF >"$build/configure.log" 2>&1 || { cat "$build/configure.log" >&2; exit 1; }
cmake --build "$build" --target twinlens_program
twinlens="$build/bin/twinlens"

step "2/4 data"
data="$build/emoji"
mkdir -p "$data"
for shard in examples/data/emoji/*.tar.gz; do
  tar="$data/$(basename "$shard" .gz)"
  if [ ! -s "$tar" ]; then gunzip -c "$shard" >"$tar.part.$$" && mv "$tar.part.$$" "$tar"; fi
done
join() { local IFS=:; echo "$*" | sed 's/:/::/g'; }
if [ -n "$own_data" ]; then
  train=$own_data
  validation=""
else
  train=$(join "$data"/{google,twitter,openmoji,fluent}-train-000.tar)
  # A style that training never sees: what the curves and the report show. Nothing is chosen by it.
  validation=$(join "$data"/emojione-{train,val,test}-000.tar)
fi
echo "training data: $train"

step "3/4 training"
# --equal-captions apart: the same name drawn by several vendors never meets itself in a batch, so it is never counted as a negative.
# bf16 where the processor multiplies it, elsewhere fp32, which takes longer.
if grep -qw avx512_bf16 /proc/cpuinfo 2>/dev/null; then precision=amp_bf16; else precision=fp32; fi
recipe=$(grep -v '^#' examples/data/emoji_recipe.txt)
pictures=5728
if [ -n "$own_data" ]; then
  # A batch that the pictures fill, as much work as the emoji, and equal captions allowed in a batch: classes are few.
  found=$(count_pictures "$own_data")
  [ -z "$found" ] || pictures=$found  # (what is not there the program names)
  [ "$pictures" -gt 1 ] || { echo "error: no pictures in $own_data; --data; give jpg, png, webp, bmp, gif, ppm, tga or psd files" >&2; exit 1; }
  batch=$((pictures / 8)); batch=$((batch > 512 ? 512 : batch < 2 ? 2 : batch))
  recipe=$(sed "s/--batch-size 512/--batch-size $batch/; s/--warmup 60//; s/--equal-captions apart/--equal-captions positives/" <<<"$recipe")
fi
# With data of one's own in the caller's folder, where the paths that a table names may begin.
at=$PWD
[ -z "$own_data" ] || at=$caller
binary=$(cd "$build/bin" && pwd)/twinlens
program() { (cd "$at" && "$binary" "$@"); }
# shellcheck disable=SC2086
train() { program train --train-data "$train" --model "$PWD/examples/data/emoji_clip.json" $recipe --precision "$precision" "$@"; }

if [ -z "$epochs" ]; then
  # As many as fit into what is left of the ten minutes, at the speed of two epochs on trial; validation and evaluation take the rest, and
  # 7 % are to spare: on a machine that is shared the speed of ten minutes is not that of ten seconds.
  probe=$(mktemp -d)
  trap 'rm -rf "$probe"' EXIT
  train --epochs 2 --logs "$probe" --name probe >"$probe/log" 2>&1 || { cat "$probe/log" >&2; exit 1; }
  speed=$(sed -n 's/.*"samples_per_second":\([0-9]*\).*/\1/p' "$probe/probe/metrics.jsonl" | tail -1)
  left=$(((seconds - 25 - (SECONDS - started)) * 93 / 100))
  most=$((200 * 5728 / pictures)); most=$((most > 200 ? 200 : most < 1 ? 1 : most))
  epochs=$((left * ${speed:-100} / pictures)); epochs=$((epochs > most ? most : epochs < 1 ? 1 : epochs))
  echo "${speed:-?} pairs a second here: $epochs epochs of $pictures pictures"
  [ "$epochs" -eq "$most" ] || echo "that is what fits into ten minutes. All $most, for better figures: on an idle machine, or with --epochs $most and more time"
fi
# The lock is held until this script and what it has started have ended.
run=quickstart
mkdir -p logs
exec 9>logs/.quickstart.lock
if ! flock --nonblock 9; then
  run=quickstart.$$
  echo "another quickstart is at work: this run goes to logs/$run"
elif [ -d logs/quickstart ]; then
  rm -rf logs/quickstart.before
  mv logs/quickstart logs/quickstart.before
  echo "the run before is kept as logs/quickstart.before"
fi
train ${validation:+--val-data "$validation"} --epochs "$epochs" --logs "$PWD/logs" --name "$run"

step "4/4 evaluation"
model=logs/$run/model
if [ -n "$own_data" ]; then
  program eval --model "$PWD/$model" --data "$own_data"
  echo "(on the training data itself; give held-out pictures to \`twinlens eval --data\` for a fair figure. This is the small model of the emoji: docs/training.md says how to fine-tune a large one)"
else
  unseen=$(join "$data"/{google,twitter,openmoji,fluent,emojione}-test-000.tar)
  result() { "$twinlens" eval --model "$model" --json --seen-words "$train" "$@"; }
  style=$(result --data "$validation")
  concepts=$(result --data "$unseen")
  groups=$(result --data "$unseen" --task zeroshot --label group --templates none)
  examples/quickstart_table.sh \
    "EmojiOne: a drawing style never seen" "" "$style" \
    "  names of words that training has" _seen "$style" \
    "  names with other words" _unseen "$style" \
    "223 concepts never seen, in five styles" "" "$concepts" \
    "  names of words that training has" _seen "$concepts" \
    "  names with other words" _unseen "$concepts" \
    "the same, zero-shot into the emoji groups" "" "$groups" \
    "  names of words that training has" _seen "$groups" \
    "  names with other words" _unseen "$groups"
fi
printf '\nreport: %s\n' "$PWD/logs/$run/report.html"
printf 'try:    %s rank --model %s --text "red heart" PICTURES...\n' "$twinlens" "$model"
