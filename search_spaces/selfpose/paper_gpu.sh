#!/usr/bin/env bash
# The paper's size on one GPU, and its supervised twin: train each, evaluate, write figures.
#
#   STORE=data/paper OUT=out/paper_gpu MINUTES=9 bash search_spaces/selfpose/paper_gpu.sh [--set KEY=VALUE ...]
#
# Options go to `posetune train`. Afterwards OUT/complete and OUT/supervised hold train.json (every
# epoch's metrics) and what `posetune evaluate` writes of the test split.
set -euo pipefail
store=${STORE:-data/paper} out=${OUT:-out/paper_gpu} minutes=${MINUTES:-9}
file=${FILE:-$(dirname "$0")/paper_gpu.yaml}
if [ ! -e "$store" ]; then
  posetune data import --format procedural --image-size 128 --level plain --limit 8000 --out "$store"
fi
for mode in complete supervised; do
  mkdir -p "$out/$mode"
  posetune train "$file" --store "$store" --set mode=$mode "$@" --minutes "$minutes" \
    --name "paper-$mode" --json > "$out/$mode/train.json"
  model=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["model"])' "$out/$mode/train.json")
  posetune evaluate "$model" --store "$store" --out "$out/$mode"
done
