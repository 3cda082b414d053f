"""TrainingArguments of transformers as JSON, and what example scripts read beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftlab.drafts import settings
from graftlab.drafts.draft import Draft

USUAL = {  # what a Trainer takes where a file does not say it
    "learning_rate": 5e-5, "num_train_epochs": 3.0, "lr_scheduler_type": "linear", "max_grad_norm": 1.0,
    "weight_decay": 0.0,
}  # fmt: skip
BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


def draft(given: Mapping[str, Any], path: Path) -> Draft:
    """Return how a Trainer was to train."""
    known = {**USUAL, **given}
    every = {
        "eval_steps": ("eval_strategy", "evaluation_strategy"),
        "save_steps": ("save_strategy",),
    }
    for steps, strategies in every.items():  # without effect but by the strategy `steps`
        if next((known[name] for name in strategies if name in known), "steps") != "steps":
            known.pop(steps, None)
    if not given.get("load_best_model_at_end"):
        known.pop("metric_for_best_model", None)
    values, left = settings.convert(known, BATCH)
    training = values.setdefault("training", {})
    training |= settings.batch(given, "per_device_train_batch_size", 8)
    training["schedule"] = {"warmup": 0, **training.get("schedule", {})}
    training.setdefault("select", "last")
    remarks = {
        "training.batch_size": "per_device_train_batch_size x gradient_accumulation_steps, on one GPU"
    }
    return Draft(path, "TrainingArguments of transformers", values, remarks, left)
