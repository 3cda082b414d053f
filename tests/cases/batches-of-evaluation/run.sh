#!/bin/bash
# A loss per token is the same whatever the batch size that it was measured with.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
tiny 'task: {kind: generation, files: {train: rows.jsonl}, prompt: "{q}:", completion: " {a}", metrics: [perplexity], validation_share: 0.4}
training: {max_steps: 3, batch_size: 8}'
for i in $(seq 1 24); do echo "{\"q\": \"count $i\", \"a\": \"$(printf 'so %.0s' $(seq 1 $((1 + i % 7))))\"}"; done >rows.jsonl
graftlab run run.yaml --out run || wrong "the run ends with $?"
for n in 1 3 64; do graftlab evaluate run --split validation --batch-size $n --json || wrong "evaluate ends with $?"; cp out.txt $n.json; done
"$PY" - <<'P' || wrong "$(cat values.txt)"
import json
values = [json.load(open(f"{n}.json"))["metrics"]["perplexity"]["value"] for n in (1, 3, 64)]
print(values, file=open("values.txt", "w"))
assert max(values) - min(values) < 1e-4 * values[0]
P
right "$(cat values.txt)"
