"""The sections of a search file: how trials are chosen, when one ends early, how the best is confirmed."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from graftlab.config import Section
from graftlab.config.section import Conflict


def refuse_idle(section: Section, name: str, only: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse keys that do nothing beside this name. `Raises:` Conflict."""
    for key in sorted(section.model_fields_set):
        if key in only and name not in only[key]:
            said = f"{key} does nothing beside name: {name}; it is of {' and '.join(only[key])}"
            raise Conflict(key, said, kind="idle")


class Sampler(Section):
    """How trials are chosen."""

    name: Literal["tpe", "gp", "random", "qmc", "grid"] = "tpe"
    """`grid` tries every combination once; the others are optuna's."""
    startup: int = Field(10, ge=0)
    """Random trials before tpe and gp learn from any."""
    candidates: int = Field(24, ge=1)
    """Of tpe: draws of which the best by expected improvement is taken."""
    multivariate: bool = True
    """Of tpe: fields are drawn together."""
    group: bool = True
    """Of tpe: fields with conditions are drawn together in groups."""

    @model_validator(mode="after")
    def _check(self) -> "Sampler":
        if not self.multivariate and self.group and "group" in self.model_fields_set:
            said = "group: fields are drawn in groups only where multivariate draws them together"
            raise Conflict("group", said, kind="idle")
        of_tpe = dict.fromkeys(("candidates", "multivariate", "group"), ("tpe",))
        refuse_idle(self, self.name, {"startup": ("tpe", "gp"), **of_tpe})
        return self


class Pruner(Section):
    """When a trial ends before its time, by its scores on validation while it trains."""

    name: Literal["median", "hyperband", "wilcoxon", "none"] = "median"
    startup: int = Field(5, ge=0)
    """Of median: trials that end by themselves before any is pruned."""
    warmup: int = Field(2, ge=0)
    """Evaluations of a trial before it may be pruned."""
    interval: int = Field(1, ge=1)
    """Evaluations between two looks at it."""
    patience: int = Field(0, ge=0)
    """Evaluations without getting better that are allowed before the pruner may speak; 0 for none."""
    p_threshold: float = Field(0.1, gt=0, lt=1)
    """Of wilcoxon."""
    reduction: int = Field(3, ge=2)
    """Of hyperband: one of so many goes on to the next rung."""

    @model_validator(mode="after")
    def _check(self) -> "Pruner":
        some = ("median", "hyperband", "wilcoxon")
        only = {"startup": some[:1], "reduction": some[1:2], "p_threshold": some[2:]}
        refuse_idle(self, self.name, only | dict.fromkeys(("warmup", "interval", "patience"), some))
        return self


class Winner(Section):
    """How the best trial is confirmed: at seeds that no trial has seen, beside the base as it is."""

    seeds: tuple[int, ...] = ()
    """Fresh seeds; none unless given: then the best run file is written and not run again."""

    @model_validator(mode="after")
    def _check(self) -> "Winner":
        if len({*self.seeds}) < len(self.seeds) or any(seed < 0 for seed in self.seeds):
            raise Conflict("seeds", "each seed once, none below 0", kind="not_allowed")
        return self
