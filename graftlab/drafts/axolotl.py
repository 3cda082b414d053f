"""A file of axolotl (github.com/axolotl-ai-cloud/axolotl), as its documentation of settings has them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftlab.drafts import columns, settings
from graftlab.drafts.draft import GENERATION, Draft, Left

USUAL = {  # what it takes where a file does not say it
    "lr_scheduler": "cosine", "num_epochs": 1.0, "sequence_len": 512, "warmup_ratio": 0.03,
    "adapter": None, "max_grad_norm": 1.0,
}  # fmt: skip
DATA = ("datasets", "test_datasets", "pretraining_dataset")
BATCH = ("micro_batch_size", "gradient_accumulation_steps")
FORMS: dict[str, dict[str, Any]] = {  # its kinds of prompts, as ours
    "alpaca": {"template": "alpaca"},
    "alpaca_chat": {"prompt": "{instruction}", "completion": "{response}"},
    "gpteacher": {"template": "alpaca", "completion": "{response}"},
    "oasst": {"prompt": "{INSTRUCTION}\n", "completion": "{RESPONSE}"},
    "jeopardy": {"template": "question_answer"},
    "alpaca_chat.load_qa": {"template": "question_answer"},
    "context_qa": {"template": "question_answer", "prompt": "{article}\n{question}\n"},
    "context_qa.load_v2": {"template": "question_answer"},
    "summarizetldr": {"prompt": "{article}\nSummary:", "completion": " {summary}"},
    "metharme": {"prompt": "{prompt}", "completion": "{generation}"},
    "alpaca_w_system.load_open_orca": {"prompt": "{system_prompt}\n{question}\n", "completion": "{response}"},
    "completion": {"template": "text"},
    "chat_template": {"template": "chat"},
    "sharegpt": {"template": "chat", "columns": {"messages": "conversations"}},
}  # fmt: skip


def draft(given: Mapping[str, Any], path: Path) -> Draft:
    """Return what a file of axolotl asks for."""
    known = {**USUAL, **given}
    if given.get("warmup_steps") is not None:
        del known["warmup_ratio"]
    values, left = settings.convert(known, (*DATA, *BATCH, "adapter"))
    values.setdefault("method", {}).setdefault("name", "lora" if given.get("adapter") else "full")
    if given.get("adapter") == "qlora":
        values.setdefault("backbone", {}).setdefault("quantization", {"bits": 4})
    training = values.setdefault("training", {})
    training |= settings.batch(given, "micro_batch_size", 1)
    values.setdefault("backbone", {})["kind"] = "decoder"
    shared = values.pop("task", {})
    task, lost = _task(known, path.parent)
    if (found := [key for key in ("rl", "reward_model") if given.get(key)]) and task is not None:
        lost.append(Left(found[0], given[found[0]], settings.WHY["rl"]))
    if task is not None:
        values["task"] = {**task, **{k: v for k, v in shared.items() if k not in ("columns",)}}
    remarks = {"training.batch_size": "micro_batch_size x gradient_accumulation_steps, on one GPU"}
    return Draft(path, "a file of axolotl", values, remarks, (*left, *lost))


def _task(given: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any] | None, list[Left]]:
    """Return the task of a file's data sets, several of which are a mixture; and what is not carried over."""
    sets: Sequence[Mapping[str, Any]] = given.get("datasets") or []
    plain = given.get("pretraining_dataset")
    if not sets and plain:
        one = plain[0] if isinstance(plain, list) else plain
        sets = [{"path": one} if isinstance(one, str) else one]
        sets = [{"type": "completion", **dict(sets[0])}]
    left: list[Left] = []
    tasks = [_one(entry, folder, left) for entry in sets]
    if not tasks:
        return None, left
    if len(tasks) == 1:
        [task] = tasks
        tests = given.get("test_datasets") or []
        if tests and (file := columns.local(tests[0], folder)) and "files" in task:
            task["files"]["test"] = file
        return task, left
    named = [{"as": f"data{number}", **task} for number, task in enumerate(tasks, start=1)]
    return {"kind": "mixture", "tasks": named, "sampling": "proportional"}, left


def _one(entry: Mapping[str, Any], folder: Path, left: list[Left]) -> dict[str, Any]:
    form, said = (
        _form(entry, left),
        {"path", "type", "data_files", "ds_type", "name", "split", "revision"},
    )
    said |= {
        key
        for key in entry
        if key.startswith(("field", "message_field", "message_property", "roles"))
    }
    left += [
        Left(f"datasets: {k}", v)
        for k, v in entry.items()
        if k not in said and v not in (None, "", False)
    ]
    if file := columns.local(entry, folder):
        return {"kind": GENERATION, **form, "files": {"train": file}}
    hub = {"path": entry.get("path"), "name": entry.get("name"), "revision": entry.get("revision"),
           "train": entry.get("split")}  # fmt: skip
    return {"kind": GENERATION, **form, "hub": {key: value for key, value in hub.items() if value}}


def _form(entry: Mapping[str, Any], left: list[Left]) -> dict[str, Any]:
    """Return how rows become texts."""
    kind = entry.get("type") or "alpaca"
    if isinstance(kind, Mapping):
        return _own(kind)
    form = (
        FORMS.get(kind)
        or FORMS.get(str(kind).partition(":")[0])
        or FORMS.get(str(kind).partition(".")[0])
    )
    if form is None:
        left.append(
            Left(
                "datasets: type",
                kind,
                "no such prompt here: task.prompt and task.completion say how",
            )
        )
        form = FORMS["alpaca"]
    form = {**form}
    if form.get("template") == "chat" and (name := entry.get("field_messages")):
        form["columns"] = {"messages": name}
    if form.get("template") == "text" and (name := entry.get("field")):
        form["columns"] = {"text": name}
    return form


def _own(kind: Mapping[str, Any]) -> dict[str, Any]:
    """Return a prompt that the file spells itself, with the columns that it names."""
    names = {
        word: str(kind.get(f"field_{word}") or word) for word in ("instruction", "input", "system")
    }
    prompt = str(kind.get("no_input_format") or kind.get("format") or "{instruction} ")
    if kind.get("field_input"):
        prompt = str(kind.get("format") or prompt)
    known = "|".join(names)  # all at once: a column may be called as another word is
    prompt = re.sub(f"{{({known})}}", lambda word: f"{{{names[word[1]]}}}", prompt)
    answer = kind.get("field_output") or "output"
    return {"prompt": prompt, "completion": "{" + str(answer) + "}"}
