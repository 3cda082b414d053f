#!/bin/bash
# Words that tables of other programs take for a missing value, or for a number, are words in a CSV file.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
tiny 'task: {kind: classification, files: {train: rows.csv}}'
words="NA N/A n/a null NULL nil None nan NaN -inf <NA> #N/A true 0x10 1_000 1e400 00 +5"
{ echo text,label; i=0; for word in $words; do i=$((i + 1)); echo "$word,$([ $((i % 2)) = 0 ] && echo NA || echo null)"; done; } >rows.csv
graftlab prepare run.yaml --json --rows 60 || wrong "refused"
"$PY" - $words <<'P' || wrong "texts or labels are not what the file has"
import json, sys
found = json.load(open("out.txt"))
assert sorted(row["text"] for rows in found["rows"].values() for row in rows) == sorted(sys.argv[1:])
assert set(found["labels"]["train"]) == {"NA", "null"}
P
right "words stay words, and labels labels"
