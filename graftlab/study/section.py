"""The keys of a study file."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from graftlab.config import Conflict, Section
from graftlab.runs.forgetting import Config as Forgetting
from graftlab.study.variation import Vary, spelled_out


class Choose(Section):
    """How one setting of each method is chosen out of those that `vary` gives."""

    by: Literal["validation"] = "validation"
    """The split whose metric chooses; what is chosen is then reported on test."""
    widen: int = Field(0, ge=0)
    """How many values may be added to a grid of numbers, one by one, while the best stands at its end."""
    seeds: Literal["all", "first"] = "all"
    """Choose by the mean over all seeds; or by the first alone, and run only what is chosen at the others."""


class Budget(Section):
    """What all methods have to share, within a tolerance: checked before the first run."""

    equal: Literal["trainable", "steps", "flops", "time"]
    """Trained parameters, optimizer steps, floating-point operations of training, or the seconds that
    `training.max_seconds` gives them."""
    within: float = Field(0.02, ge=0)
    """How much more the largest may have than the smallest, as a share."""


class Study(Section):
    """The keys of a study file, beside `extends`."""

    name: str | None = None
    """Names the study and its directory; the file's own name unless given."""
    base: str | dict[str, Any]
    """What all runs share: a run file, a recipe's name, or a run file's keys."""
    methods: tuple[str | dict[str, Any], ...] = ()
    """Names, or sections laid over the base's method; an entry with the key `method` is a piece of a run
    file. Left out: the base's own. The same for tasks and backbones."""
    tasks: tuple[str | dict[str, Any], ...] = ()
    """Names, or sections laid over the base's task."""
    backbones: tuple[str | dict[str, Any], ...] = ()
    """Models, or sections laid over the base's backbone."""
    seeds: tuple[int, ...] = ()
    """Each combination runs once with each; left out: the base's own."""
    split_with_seed: bool = False
    """Draw what the task carves and samples with each run's seed (`task.split_seed`), the same for all
    methods: differences are then for other splits too, not for this one alone."""
    vary: Vary = Field(default_factory=dict)
    """A run file's key, such as `training.learning_rate`, and its values, or the `centre` of a grid of them;
    all combinations run. An entry of `methods` with the key `method` may have a `vary` of its own."""
    budget: Budget | None = None
    """Refuse methods that are not of one size, on each task and backbone."""
    choose: Choose | None = None
    """Report each method at one setting of `vary` only, chosen on validation."""
    tune: dict[str, Any] | None = None
    """Search for the setting of each method, with as many trials for each: `trials`, `space`, `sampler`,
    `pruner` and `seed` of a search file. An entry of `methods` with the key `method` may have a space too."""
    forgetting: Forgetting = Forgetting()
    """What runs are asked in the end that they were not trained on, to see what they have forgotten."""

    @model_validator(mode="after")
    def _one_choice(self) -> "Study":
        if self.tune is not None and (self.vary or self.choose):
            raise Conflict("tune", "tune chooses by itself: leave vary and choose out")
        return self

    _spelled_out = field_validator("vary", mode="before")(spelled_out)
