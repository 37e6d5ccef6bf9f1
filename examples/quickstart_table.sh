#!/usr/bin/env bash
# A small table from pairs of a label and the JSON of `twinlens eval --json`.
set -euo pipefail
number() { grep -oE "\"$2\":[0-9.e-]+" <<<"$1" | head -n 1 | cut -d: -f2; }
percent() { awk -v x="$1" 'BEGIN { if (x == "") print "-"; else printf "%.1f %%", 100 * x }'; }
printf '%-40s %8s %8s  %8s %8s %8s  %8s\n' "" pictures names "R@1" "R@5" "text R@1" chance
while [ $# -ge 2 ]; do
  first=$(number "$2" 'image_to_text_R@1')
  five=$(number "$2" 'image_to_text_R@5')
  back=$(number "$2" 'text_to_image_R@1')
  if [ -z "$first" ]; then
    first=$(number "$2" zeroshot_top1)
    five=$(number "$2" zeroshot_top5)
  fi
  printf '%-40s %8s %8s  %8s %8s %8s  %8s\n' "$1" "$(number "$2" num_images | cut -d. -f1)" "$(number "$2" num_texts | cut -d. -f1)" "$(percent "$first")" \
    "$(percent "$five")" "$(percent "$back")" "$(percent "$(number "$2" chance)")"
  shift 2
done
