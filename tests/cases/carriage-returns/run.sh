#!/bin/bash
# A CSV file as an old Mac writes it, whose lines end with CR alone, has its rows.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
tiny 'task: {kind: classification, files: {train: rows.csv}}'
printf 'text,label\r' >rows.csv
for i in $(seq 1 20); do printf 'line %s,%s\r' "$i" "$([ $((i % 2)) = 0 ] && echo even || echo odd)"; done >>rows.csv
graftlab prepare run.yaml --json --rows 60 || wrong "refused"
"$PY" - <<'P' || wrong "rows differ"
import json
found = [row["text"] for rows in json.load(open("out.txt"))["rows"].values() for row in rows]
assert sorted(found) == sorted(f"line {i}" for i in range(1, 21))
P
right "20 rows"
