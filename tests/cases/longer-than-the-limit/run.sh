#!/bin/bash
# Rows whose prompts leave no room for an answer are left out, counted, and spoil no loss.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
tiny 'task: {kind: generation, files: {train: rows.jsonl}, prompt: "{q}:", completion: " {a}", metrics: [perplexity], max_length: 40,
  max_left_out: 0.5, validation_share: 0.2}
training: {max_steps: 3, batch_size: 8}'
for i in $(seq 1 30); do echo "{\"q\": \"$([ $((i % 5)) = 0 ] && printf 'very %.0s' $(seq 1 20))row $i\", \"a\": \"yes\"}"; done >rows.jsonl
graftlab run run.yaml --out run || wrong "the run ends with $?"
"$PY" - <<'P' || wrong "rows are not counted, or a loss is not finite"
import json, math
assert json.load(open("run/environment.json"))["data"]["left_out"]["train"]
assert math.isfinite(json.load(open("run/result.json"))["metrics"]["validation"]["perplexity"]["value"])
P
right "left out and counted"
