"""Finished runs of a small model that writes texts: random, with a token a byte, in four steps."""

import json

from finished_runs import finish

CHAT = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
PROMPTS = {"prompt": "Q: {question}\nA:", "completion": " {answer}"}


def finish_writer(folder, name, generation=(), **task):
    """Carry out a run of four steps in `folder`; of its task these fields, else questions and answers."""
    data = folder / f"data-{name}"
    data.mkdir()
    for split, count in {"train": 16, "validation": 4, "test": 4}.items():
        rows = [
            {
                "question": f"{split} {i}?",
                "answer": "yes" * (1 + i % 2),
                "messages": turns(split, i),
            }
            for i in range(count)
        ]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "chat.jinja").write_text(CHAT)
    fields = {
        "kind": "generation",
        "files": {split: str(data / f"{split}.jsonl") for split in ("train", "validation", "test")},
        "metrics": ["perplexity"],
        "generation": {"max_new_tokens": 12, **dict(generation)},
        **({} if "template" in task else PROMPTS),
        **({"chat_template_file": str(data / "chat.jinja")} if chats(task) else {}),
        **task,
    }
    backbone = {"model": "tiny", "kind": "tiny", "max_length": 96}
    return finish(folder, {"name": "lora"}, name=name, backbone=backbone, task=fields)


def conversation(adapted, *said, system=None):
    """Return turns of user and assistant, in turns, as transformers puts them into the template above."""
    front = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant") * len(said)
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    return adapted.backbone.processor.apply_chat_template(
        front + messages, chat_template=CHAT, add_generation_prompt=True, tokenize=False
    )


def chats(task):
    return task.get("template") == "chat" or task.get("chat_template")


def turns(split, i):
    said = [("user", f"{split} {i}"), ("assistant", "yes")] * (1 + i % 2)
    return [{"role": role, "content": content} for role, content in said]
