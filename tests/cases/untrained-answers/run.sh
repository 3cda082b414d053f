#!/bin/bash
# Of a conversation each answer is trained but those that say not to be, and nothing else.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
tiny 'task: {kind: generation, files: {train: rows.jsonl}, template: chat, chat_template_file: chat.jinja}'
cat >chat.jinja <<'J'
{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}
J
"$PY" - <<'P'
import json
with open("rows.jsonl", "w") as file:
    for i in range(12):
        turns = [("user", f"u{i}", {}), ("assistant", "LEFT", {"weight": 0}), ("user", "v", {}), ("assistant", f"KEPT{i}", {}),
                 ("user", "thanks", {})]
        file.write(json.dumps({"messages": [{"role": r, "content": c, **more} for r, c, more in turns]}) + "\n")
P
graftlab show batch run.yaml --examples 12 --json || wrong "show batch ends with $?"
"$PY" - <<'P' || wrong "other words are trained"
import json
examples = json.load(open("out.txt"))["examples"]
for example in examples:
    trained = "".join(token["text"] for token in example["tokens"] if token["trained"])
    assert trained.startswith("KEPT") and "LEFT" not in trained and "thanks" not in trained, trained
P
right "KEPT alone"
