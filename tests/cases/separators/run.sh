#!/bin/bash
# Characters that some programs take for the end of a line stand inside texts of JSON Lines.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
tiny 'task: {kind: classification, files: {train: rows.jsonl}}'
"$PY" - <<'P'
import json
odd = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"
texts = [f"before {i}{odd[i % len(odd)]}after" for i in range(24)]
with open("rows.jsonl", "w", encoding="utf-8", newline="\n") as file:
    for i, text in enumerate(texts):
        file.write(json.dumps({"text": text, "label": "ab"[i % 2]}, ensure_ascii=False) + "\n")
json.dump(texts, open("texts.json", "w"))
P
graftlab prepare run.yaml --json --rows 60 || wrong "refused"
"$PY" - <<'P' || wrong "rows or texts differ"
import json
found = json.load(open("out.txt"))["rows"].values()
assert sorted(row["text"] for rows in found for row in rows) == sorted(json.load(open("texts.json")))
P
right "each row is one, with its characters"
