#!/usr/bin/env bash
# A table from triples of a label, a suffix of the names ("", _seen, _unseen) and the JSON of `twinlens eval --json`.
set -euo pipefail
number() { grep -oE "\"$2\":[0-9.e-]+" <<<"$1" | head -n 1 | cut -d: -f2; }
percent() { awk -v x="$1" 'BEGIN { if (x == "") print "-"; else printf "%.1f %%", 100 * x }'; }
row() { printf '%-44s %8s %6s  %7s %7s %7s  %7s %7s %7s  %7s\n' "$@"; }
row "" "" "" "picture" "to" "text" "text to" "picture" "" ""
row "" pictures texts R@1 R@5 R@10 R@1 R@5 R@10 chance
while [ $# -ge 3 ]; do
  cells=()
  for direction in image_to_text text_to_image; do
    for k in 1 5 10; do cells+=("$(percent "$(number "$3" "${direction}_R@$k$2")")"); done
  done
  if [ -n "$(number "$3" zeroshot_top1)" ]; then
    cells=("$(percent "$(number "$3" "zeroshot_top1$2")")" "$(percent "$(number "$3" "zeroshot_top5$2")")" - - - -)
  fi
  row "$1" "$(number "$3" "num_images$2" | cut -d. -f1)" "$(number "$3" "num_texts$2" | cut -d. -f1)" "${cells[@]}" "$(percent "$(number "$3" chance)")"
  shift 3
done
