"""Weights of the classes in the training loss: rare ones count more, or as a run file says."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from graftlab.config import Conflict
from graftlab.contracts import Data
from graftlab.data.section import DataSection
from graftlab.errors import ConfigError, Place, unknown

if TYPE_CHECKING:
    from torch import Tensor

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ClassWeights = Literal["balanced"] | dict[str, Weight]


class WeightedClasses(DataSection):
    """A task of classes, which may weigh differently."""

    class_weights: ClassWeights | None = None
    """How much each class counts in the training loss. `balanced`: all classes alike, a row of one weighs
    rows / (classes x rows of its class), as scikit-learn has it. A mapping: class name -> weight, 1 for those
    left out. The losses of validation and test are without."""


def weights(given: ClassWeights | None, data: Data) -> "Tensor | None":
    """Return (C,) the weight of each class; None where all count alike, or there is nothing to train on.

    Raises:
        ConfigError: a name is no class.
    """
    if given is None or "train" not in data.splits:
        return None
    import torch

    names = data.problem.labels
    if given == "balanced":
        return torch.tensor(_balanced([row["label"] for row in data.splits["train"]], len(names)))
    for name in given:
        if name not in names:
            raise ConfigError(
                f"task.class_weights: {unknown('class', name, names)}",
                place=Place(key=("task", "class_weights", name)),
                kind="unknown",
                given=name,
                allowed=list(names),
            )
    return torch.tensor([given.get(name, 1.0) for name in names])


def _balanced(labels: Sequence[int | None], num_classes: int) -> list[float]:
    """Return weights by which every class that occurs has the same sum; 1 for one that does not occur."""
    counts = Counter(label for label in labels if label is not None)
    total = sum(counts.values())
    return [
        total / (len(counts) * counts[label]) if counts[label] else 1.0
        for label in range(num_classes)
    ]


def weighted(losses_N: "Tensor", labels_N: "Tensor", weights_C: "Tensor") -> "Tensor":
    """Return each example's loss times the weight of its class."""
    # a row without a label has no loss, whatever its weight
    return losses_N * weights_C.to(losses_N.device)[labels_N.clamp(min=0)]


def refuse_for_scores(section: WeightedClasses) -> None:
    """Refuse weights of classes where there are none. `Raises:` Conflict."""
    if section.class_weights is not None:
        raise Conflict("class_weights", "class_weights are for classes; regression has none")
