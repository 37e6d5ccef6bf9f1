#!/usr/bin/env bash
# Everything that needs a card, in one go: the CUDA tests, compute-sanitizer over the op cases, the benchmarks beside PyTorch.
#
#   tests/gpu.sh                    all of it, on the programs of $TWINLENS_BUILD_DIR (default build/cuda), which are built when missing
#   tests/gpu.sh tests sanitizer    only these parts: tests, sanitizer, bench
#
# Writes gpu.json and gpu.txt (a table) to $TWINLENS_GPU_OUT (default build/gpu), with a log of every run beside them; both have what the
# benchmarks printed. Returns 1 when a run failed. Programs built elsewhere will do: on a machine without the packages of
# tests/packages.txt bring bin/ along, and the shared libraries that it needs in $TWINLENS_BUILD_DIR/lib.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${TWINLENS_BUILD_DIR:-build/cuda}
out=${TWINLENS_GPU_OUT:-build/gpu}
parts=("$@")
[[ ${#parts[@]} -gt 0 ]] || parts=(tests sanitizer bench)
jobs=$(($(nproc) > 12 ? 12 : $(nproc)))
mkdir -p "$out/logs"
rm -f "$out"/logs/*.row "$out"/logs/bench-*.log
export TWINLENS_SOURCE_DIR=$PWD OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
export LD_LIBRARY_PATH=$PWD/$build/lib:${LD_LIBRARY_PATH:-}:/usr/local/cuda/lib64
export PATH=$PATH:/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer

if ! nvidia-smi >/dev/null 2>&1; then
  echo "skipped: no NVIDIA card on this machine" >&2
  exit 0
fi
if [[ ! -x $build/bin/test_ops ]]; then
  tests/packages.sh build tests
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DTWINLENS_CUDA=ON -DTWINLENS_WERROR=ON
  cmake --build "$build"
fi
card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -1)
echo "card: $card"

# Stopped from outside, nothing is left behind: a shell hands the signal on to what it has started, `timeout` to the process group of its own.
stop() {
  # shellcheck disable=SC2046 # one word for each
  kill $(jobs -p) 2>/dev/null || true
  wait
  exit 143
}
trap stop INT TERM HUP

# One run: kind, name, seconds allowed, command. A row of the table, and a log. In the background, since a trap waits for what is not.
one() {
  local kind=$1 name=$2 seconds=$3 start=$SECONDS code=0 log
  shift 3
  log="$out/logs/$kind-${name//[^a-zA-Z0-9_]/_}"
  timeout --kill-after 10 "$seconds" "$@" >"$log.log" 2>&1 &
  wait $! || code=$?
  printf '%s\t%s\t%s\t%d\n' "$kind" "$name" "$([[ $code == 0 ]] && echo passed || echo "FAILED ($code)")" $((SECONDS - start)) >"$log.row"
}

# The same beside what runs already, up to $jobs at once.
beside() {
  while (($(jobs -rp | wc -l) >= jobs)); do wait -n || true; done
  { trap stop TERM && one "$@"; } &
}

op_names() { "$build/bin/test_ops" --list-test-names-only || true; } # (Catch2's status of a listing is the number of names)

tests_part() {
  beside test kernels 200 "$build/bin/test_kernels" "[cuda]~[bandwidth]~[tensor-speed]"
  beside test optimizers 120 "$build/bin/test_kernels" "~[cuda]"
  beside test core 300 "$build/bin/test_core"
  local op
  while read -r op; do beside test "op $op" 200 env TWINLENS_OP_CASES=cuda "$build/bin/test_ops" "$op"; done < <(op_names)
  if [[ -x $build/bin/test_clip ]]; then beside test clip 300 "$build/bin/test_clip" "[cuda]"; fi
  wait
}

# memcheck over all op cases, racecheck and initcheck over them again. Large cases take minutes there: a run that is cut off is not a pass.
sanitizer_part() {
  local tool op
  if ! command -v compute-sanitizer >/dev/null; then
    echo "skipped: no compute-sanitizer" >&2
    return 0
  fi
  for tool in ${TWINLENS_GPU_SANITIZERS:-memcheck racecheck initcheck}; do
    while read -r op; do
      beside "$tool" "op $op" "${TWINLENS_GPU_SANITIZER_SECONDS:-280}" env TWINLENS_OP_CASES=cuda \
        compute-sanitizer --tool "$tool" --error-exitcode 9 "$build/bin/test_ops" "$op"
    done < <(op_names)
  done
  wait
}

# Ten minutes at the most.
bench_part() {
  local step=(--device cuda --model ViT-B-32 --batch-size 1024 --precision bf16)
  one bench bandwidth 120 "$build/bin/test_kernels" "[bandwidth]"
  one bench tensor_speed 60 "$build/bin/test_kernels" "[tensor-speed]"
  one bench step_dense 60 "$build/bin/train_step" "${step[@]}" --steps 30 \
    --captions dense --no-pack-captions --no-prune-last-block --no-encode-equal-once
  one bench step_packed 60 "$build/bin/train_step" "${step[@]}" --steps 30 --captions web
  if ! python3 -c "import torch" 2>/dev/null; then
    echo "skipped: python3 has no torch to compare with" >&2
    return 0
  fi
  one bench against_pytorch 300 python3 bench/against_pytorch.py "${step[@]}" --train-step "$build/bin/train_step" \
    --captions dense --dense --steps 10 --rounds 3
}

# What the benchmarks printed: as it stands, and as JSON, a string for every line that is no object itself.
figures() {
  local log
  for log in "$out"/logs/bench-*.log; do
    if [[ -f $log ]]; then printf '\n%s\n' "$(basename "$log" .log)" && cat "$log"; fi
  done
}
figures_json() {
  figures | sed '/^$/d' | sed -E '/^\{.*\}$/!{ s/[\\"]/\\&/g; s/[[:cntrl:]]/ /g; s/.*/"&"/; }; s/^/  /; $!s/$/,/'
}

for part in "${parts[@]}"; do "${part}_part"; done

{ sort "$out"/logs/*.row && figures; } | tee "$out/gpu.txt"
{
  printf '{"card": "%s", "date": "%s", "runs": [' "$card" "$(date -u +%FT%TZ)"
  cat "$out"/logs/*.row | sort | awk -F'\t' '{ printf "%s\n  {\"kind\": \"%s\", \"name\": \"%s\", \"result\": \"%s\", \"seconds\": %d}", (NR > 1 ? "," : ""), $1, $2, $3, $4 }'
  printf '\n], "figures": [\n'
  figures_json
  printf ']}\n'
} >"$out/gpu.json"
! grep -q FAILED "$out"/logs/*.row
