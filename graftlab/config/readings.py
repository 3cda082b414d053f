"""What values in files of axolotl, LLaMA-Factory, transformers and PEFT are here."""

from collections.abc import Callable, Mapping
from typing import Any

Read = Callable[[Any], Any]
"""Returns what stands here for a value there, `NOTHING` for one that asks for nothing.

Raises:
    ValueError: why there is nothing here for it.
"""
NOTHING = object()


def if_true(value: object) -> Read:
    """Return what reads a switch: `value` where it is on, nothing where it is off."""
    return lambda given: value if given is True or given == "true" else NOTHING


def named(names: Mapping[object, object]) -> Read:
    """Return what reads a name of theirs as ours."""

    def read(given: object) -> object:
        if (name := given.lower() if isinstance(given, str) else given) in names:
            return names[name]
        raise ValueError("there is no such one here")

    return read


def precision(name: str) -> Read:
    """Return what reads a switch of a precision; `auto` takes it where the GPU has it."""
    return lambda given: name if given in (True, "true", "auto", "full") else NOTHING


def targets(given: object) -> object:
    if given in ("all", "all-linear"):
        return "all-linear"
    if isinstance(given, str) and "," in given:
        return [name.strip() for name in given.split(",")]
    return given


def every(given: object) -> object:
    """Read every so many steps; a share of the run is none."""
    if isinstance(given, float) and not given.is_integer():
        raise ValueError("it is a share of the run; here a number of steps, or epoch")
    return int(given) if isinstance(given, int | float) else given


def when(given: object) -> object:
    return {"no": 0, "epoch": "epoch", "steps": NOTHING}.get(str(given), NOTHING)


def schedule(given: object) -> object:
    return named(SCHEDULES)(str(given).lower())


def optimizer(given: object) -> object:
    return named(OPTIMIZERS)(str(given).lower())


def trackers(given: object) -> object:
    names = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    asked = [name for name in names if name not in ("none", "all")]
    if other := [name for name in asked if name not in ("tensorboard", "wandb", "trackio")]:
        raise ValueError(
            f"{', '.join(map(str, other))}: here there are tensorboard, wandb, trackio"
        )
    return asked or NOTHING


def share(given: object) -> object:
    if not given:
        raise ValueError("without validation there; here it is carved all the same, to choose by")
    if isinstance(given, int | float) and given < 1:
        return float(given)
    raise ValueError("it counts rows; here it is a share of them")


SCHEDULES: dict[object, object] = {
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine_with_restarts",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "reduce_lr_on_plateau": "plateau",
}
OPTIMIZERS: dict[object, object] = {
    **dict.fromkeys(
        ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused", "adamw"), "adamw"
    ),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit"), "adamw_8bit"),
    "paged_adamw_8bit": "paged_adamw_8bit",
    **{name: name for name in ("adafactor", "sgd", "adagrad", "rmsprop")},
}
DTYPES: dict[object, object] = {
    "bfloat16": "bfloat16", "bf16": "bfloat16", "torch.bfloat16": "bfloat16",
    "float16": "float16", "fp16": "float16", "half": "float16", "torch.float16": "float16",
    "float32": "float32", "fp32": "float32", "torch.float32": "float32", "auto": NOTHING,
}  # fmt: skip
FLASH = {True: "flash_attention_2", False: NOTHING, "fa2": "flash_attention_2", "sdpa": "sdpa",
         "auto": NOTHING, "disabled": "eager"}  # fmt: skip
INITS: dict[object, object] = {
    True: NOTHING,
    **{name: name for name in ("gaussian", "orthogonal", "pissa", "olora", "eva")},
}
METHODS: dict[object, object] = {
    "lora": "lora", "qlora": "lora", "full": "full", None: "full", "dora": "dora",
    "adalora": "adalora", "prefix_tuning": "prefix", "prompt_tuning": "prompt",
}  # fmt: skip
