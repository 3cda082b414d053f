"""An adapter's settings, `adapter_config.json`, as PEFT writes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftlab.drafts import settings
from graftlab.drafts.draft import Draft, Left
from graftlab.weights import pretrained

KINDS = {"CAUSAL_LM": "decoder", "SEQ_CLS": "encoder"}
FIELDS = {"adalora": {"init_r": "initial_rank", "target_r": "target_rank"}}


def draft(given: Mapping[str, Any], path: Path) -> Draft:
    """Return what an adapter asks for: the model that it was trained on, and the method."""
    lost: list[Left] = []
    kind = str(given["peft_type"]).lower()
    known = {**given, "peft_type": kind}
    values, left = settings.convert(known, ("task_type", *(("r",) if kind == "adalora" else ())))
    method = values.setdefault("method", {})
    if "name" not in method:
        lost.append(
            Left(
                "peft_type", given["peft_type"], "there is no such method here: lora stands for it"
            )
        )
        method["name"] = "lora"
    if method["name"] == "lora" and method.get("init") == "pissa":
        method |= {"name": "pissa"}
        del method["init"]
    for theirs, ours in FIELDS.get(method["name"], {}).items():
        if given.get(theirs):
            method[ours] = given[theirs]
            left = tuple(one for one in left if one.key != theirs)
    if method["name"] == "full":
        values["method"] = {"name": "full"}
    model = values.get("backbone", {}).get("model")
    task = str(given.get("task_type") or "")
    if task not in ("", *KINDS):
        lost.append(Left("task_type", task, "no such task here"))
    remarks = {}
    if model is not None and pretrained.kind_of(model) is None:
        values["backbone"]["kind"] = KINDS.get(task, "decoder")
        remarks["backbone"] = (
            f"kind is that of the adapter's task_type, {task or 'which it does not name'}"
        )
    return Draft(path, "the settings of an adapter of PEFT", values, remarks, (*left, *lost))
