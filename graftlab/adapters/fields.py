"""What the run file says of a PEFT method, and whether the installed PEFT knows it."""

import ast
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from graftlab.config import Conflict, Section
from graftlab.errors import unknown
from graftlab.weights import surgery

# Fields of PEFT's configs that graftlab sets itself, and from which key of the run file.
OWN_FIELDS = {
    "peft_type": "method.name",
    "task_type": "the task",
    "auto_mapping": "the backbone",
    "base_model_name_or_path": "backbone.model",
    "revision": "backbone.revision",
    "modules_to_save": "the backbone's head",
    "inference_mode": "the command",
    "peft_version": "the installed peft",
    "target_modules": "method.targets",
    "r": "method.rank",
    "lora_alpha": "method.alpha",
    "lora_dropout": "method.dropout",
    "use_rslora": "method.rslora",
    "init_lora_weights": "method.init",
    "eva_config": "method.init",
    "use_dora": "method.name",
    "num_virtual_tokens": "method.num_tokens",
    "num_transformer_submodules": "the backbone",
    "num_attention_heads": "the backbone",
    "num_layers": "the backbone",
    "token_dim": "the backbone",
}


MEGATRON = "it names a module that peft imports, and no layer here is Megatron's"
UNFIT = {
    "megatron_config": MEGATRON,
    "megatron_core": MEGATRON,
    "monteclora_config": "peft leaves it to the training script to add its variational loss, which no loop "
    "here does",
}
"""Fields that can be tried without a fault and do not do what they say, or name code."""


class PeftFields(Section):
    """A method whose PEFT config takes further fields."""

    tuner: ClassVar[str] = "lora"  # the package of peft.tuners that holds the config's class
    own_fields: ClassVar[
        Mapping[str, str]
    ] = {}  # further fields that the method sets, and from what

    peft: dict[str, object] = Field(default_factory=dict)
    """Further fields of the installed PEFT's config, passed on as they are."""

    @field_validator("peft")
    @classmethod
    def _known_to_peft(cls, given: dict[str, object]) -> dict[str, object]:
        known = config_fields(cls.tuner)
        for name in given:
            if key := {**OWN_FIELDS, **cls.own_fields}.get(name):
                raise Conflict(name, f"peft.{name} is set from {key}; change that instead")
            if name not in known:
                raise Conflict(name, unknown("field of peft's config", name, known), "unknown")
            if why := UNFIT.get(name):
                raise Conflict(name, f"peft.{name} is refused: {why}", "refused")
        return given


class OnLinear(Section):
    """What corrections of linear layers have in common."""

    alpha: float = Field(16.0, gt=0)
    """The correction is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is zeroed in training."""
    targets: str | tuple[str, ...] = surgery.ALL_LINEAR
    """Layers to adapt: last names or suffixes, a regular expression for full names, or all-linear."""

    @field_validator("targets")
    @classmethod
    def _not_empty(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not targets or (not isinstance(targets, str) and "" in targets):
            raise ValueError("targets is empty; name linear layers, or write all-linear")
        return targets


class LinearAdapter(OnLinear, PeftFields):
    """Adapters on linear layers whose tuner is PEFT's own."""


class LowRank(LinearAdapter):
    """What LoRA and the methods that start it elsewhere have in common."""

    rank: int = Field(8, ge=1, le=surgery.MOST_RANK)
    """Rank of the correction (r in the paper)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (Kalajdzievski, 2023, arXiv 2312.03732)."""
    lora_plus_ratio: float = Field(1.0, gt=0)
    """B's learning rate is this many times A's (LoRA+, arXiv 2402.12354, takes 16)."""
    start_from: Path | None = None
    """Begin from the adapter of an earlier run of this method: its run directory, or an adapter folder."""
    start_head: bool = True
    """Begin from that run's head too; false for a task with other labels. Needs start_from."""

    @model_validator(mode="after")
    def _head_of_what(self) -> "LowRank":
        if not self.start_head and self.start_from is None:
            raise Conflict("start_head", "start_head does nothing without start_from")
        return self


def whole(number: float) -> float:
    """Return 16 for 16.0, as PEFT's own files have it."""
    return int(number) if float(number).is_integer() else number


@functools.cache
def config_fields(tuner: str) -> frozenset[str]:
    """Return the fields of the config class of `peft.tuners.<tuner>`, inherited ones included.

    The source is read, not imported: importing PEFT takes seconds.
    """
    spec = importlib.util.find_spec("peft")
    assert spec is not None, "peft is a dependency"
    assert spec.origin is not None
    root = Path(spec.origin).parent
    classes: dict[str, ast.ClassDef] = {}
    for file in ("config.py", "tuners/lora/config.py", f"tuners/{tuner}/config.py"):
        tree = ast.parse((root / file).read_text(encoding="utf-8"))
        here = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        classes |= here
    (name,) = [name for name in here if "PeftConfig" in _ancestors(name, classes)]
    fields: set[str] = set()
    for ancestor in _ancestors(name, classes):
        fields |= {
            line.target.id
            for line in classes[ancestor].body
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        }
    return frozenset(fields)


def _ancestors(name: str, classes: Mapping[str, ast.ClassDef]) -> list[str]:
    """Return a class and all that it inherits from, as far as `classes` know them."""
    if name not in classes:
        return []
    bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
    return [name, *(further for base in bases for further in _ancestors(base, classes))]
