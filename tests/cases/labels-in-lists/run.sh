#!/bin/bash
# Lists and mappings as labels are another problem, and no classes.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
tiny 'task: {kind: classification, files: {train: rows.jsonl}}'
for i in $(seq 1 24); do echo "{\"text\": \"row $i\", \"label\": {\"tone\": [\"warm\", \"cold\"]}}"; done >rows.jsonl
graftlab check run.yaml; refused $? 3
