"""A file of LLaMA-Factory (github.com/hiyouga/LLaMA-Factory), with its `dataset_info.json` where that is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftlab.drafts import columns, settings
from graftlab.drafts.draft import GENERATION, Draft, Left

USUAL = {  # what it takes where a file does not say it
    "finetuning_type": "lora", "lora_rank": 8, "lora_target": "all", "cutoff_len": 2048,
    "learning_rate": 5e-5, "num_train_epochs": 3.0, "lr_scheduler_type": "linear", "warmup_steps": 0,
    "max_grad_norm": 1.0,
}  # fmt: skip
HANDLED = ("dataset", "eval_dataset", "dataset_dir", "template", "stage", "per_device_train_batch_size",
           "gradient_accumulation_steps", "media_dir", "val_size")  # fmt: skip
PLAIN = ("sft", "pt")


def draft(given: Mapping[str, Any], path: Path) -> Draft:
    """Return what a file of LLaMA-Factory asks for."""
    known = {**USUAL, **given}
    known.setdefault("lora_alpha", 2 * known["lora_rank"])
    if given.get("finetuning_type") not in (None, "lora"):
        known = {key: value for key, value in known.items() if not key.startswith("lora_")}
    values, left = settings.convert(known, HANDLED)
    values.setdefault("training", {}).update(
        settings.batch(given, "per_device_train_batch_size", 8)
    )
    values["training"]["schedule"] = {"warmup": 0, **values["training"].get("schedule", {})}
    values.setdefault("backbone", {})["kind"] = "decoder"
    lost: list[Left] = []
    if (stage := given.get("stage", "sft")) not in PLAIN:
        lost.append(Left("stage", stage, settings.WHY["rl"]))
    shared = values.pop("task", {})
    if share := given.get("val_size"):
        shared |= {"validation_share": share} if share < 1 else {"validation_last": int(share)}
    remarks = {
        "training.batch_size": "per_device_train_batch_size x gradient_accumulation_steps, on one GPU"
    }
    tasks = [_one(name, known, path.parent, lost) for name in _names(given.get("dataset"))]
    found = [task for task in tasks if task]
    if len(found) == 1:
        values["task"] = {**found[0], **shared}
    elif found:
        named = [{"as": f"data{number}", **task} for number, task in enumerate(found, start=1)]
        values["task"] = {
            "kind": "mixture",
            "tasks": named,
            "each": shared,
            "sampling": "proportional",
        }
    return Draft(path, "a file of LLaMA-Factory", values, remarks, (*left, *lost))


def _names(given: object) -> list[str]:
    names = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else []
    return [str(name).strip() for name in names if str(name).strip()]


def _one(
    name: str, given: Mapping[str, object], folder: Path, lost: list[Left]
) -> dict[str, object] | None:
    """Return the task of one data set, by what `dataset_info.json` says of it."""
    place = str(given.get("dataset_dir") or "data")
    listed = next(
        (
            root / place
            for root in (folder, Path.cwd())
            if (root / place / "dataset_info.json").is_file()
        ),
        None,
    )
    known = json.loads((listed / "dataset_info.json").read_text(encoding="utf-8")) if listed else {}
    entry = known.get(name)
    if entry is None and (file := columns.local({"path": name}, folder)):
        return {**columns.task_of(file), "files": {"train": file}}
    if not isinstance(entry, Mapping):
        where = (
            f"it is not in {listed / 'dataset_info.json'}"
            if listed
            else f"there is no {place}/dataset_info.json here"
        )
        lost.append(
            Left("dataset", name, f"{where}: say where its rows are by task.files or task.hub")
        )
        return None
    if entry.get("ranking"):
        lost.append(Left("dataset", name, settings.WHY["rl"]))
        return None
    form = _form(entry, given)
    if hub := entry.get("hf_hub_url"):
        asked = {"path": hub, "name": entry.get("subset"), "train": entry.get("split")}
        return {
            "kind": GENERATION,
            **form,
            "hub": {key: value for key, value in asked.items() if value},
        }
    return {
        "kind": GENERATION,
        **form,
        "files": {"train": (listed or folder) / str(entry.get("file_name"))},
    }


def _form(entry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return how its rows become texts: `instruction` and `input` are the user's turn, a line each."""
    named = entry.get("columns") or {}
    if given.get("stage") == "pt":
        return {"template": "text", "columns": {"text": named.get("prompt") or "text"}}
    if entry.get("formatting") == "sharegpt":
        return {
            "template": "chat",
            "columns": {"messages": named.get("messages") or "conversations"},
        }
    prompt, answer = named.get("prompt") or "instruction", named.get("response") or "output"
    query = named.get("query") or ("" if named else "input")
    turn = "{" + prompt + "}" + ("\n{" + query + "}" if query else "")
    return {"prompt": turn, "completion": "{" + answer + "}", "chat_template": True}
