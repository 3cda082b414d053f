#!/bin/bash
# A run in which every step was skipped, as nothing was finite, is no success.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
tiny 'task: {kind: classification, files: {train: rows.csv}}
training: {max_steps: 4, batch_size: 8, learning_rate: 1e-3}'
{ echo text,label; for i in $(seq 1 40); do echo "row $i,$([ $((i % 2)) = 0 ] && echo a || echo b)"; done; } >rows.csv
graftlab run run.yaml --out first || wrong "the first run ends with $?"
"$PY" - <<'P'
from safetensors.numpy import load_file, save_file
path = "first/adapter/adapter_model.safetensors"
tensors = load_file(path)
tensors[min(tensors)][...] = float("inf")
save_file(tensors, path, metadata={"format": "pt"})
P
rm -f first/adapter/graftlab.json
graftlab run run.yaml --set method.start_from=first/adapter --out second; rc=$?
[ $rc != 0 ] && clean && right "exit $rc: $(tail -1 err.txt)"; wrong "exit $rc"
