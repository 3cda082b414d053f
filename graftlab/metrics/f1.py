"""F1 of classes: their mean, or that of class 1 of two.

Standard error: delete-one jackknife.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from graftlab.config import Conflict, Section
from graftlab.errors import DataError
from graftlab.metrics import Predictions, Score, pairs
from graftlab.metrics._confusion import Margins, accuracy, f1, scored

if TYPE_CHECKING:
    from graftlab.contracts.arrays import Floats

# Shapes: K confusion matrices (or none of that axis), C classes.

HIGHER_IS_BETTER = True
PROBLEMS = ("classes",)


class Config(Section):
    """Settings of F1."""

    average: Literal["macro", "weighted", "binary"] = "macro"
    """Over the classes that occur among labels or predictions, each counting alike or by its examples, as
    scikit-learn has it; or no mean: the F1 of class 1 of two."""
    with_accuracy: bool = False
    """Take the mean with accuracy, as GLUE does for MRPC and QQP; of class 1 of two."""

    @model_validator(mode="after")
    def _is_glues(self) -> "Config":
        if self.with_accuracy and self.average != "binary":
            raise Conflict("with_accuracy", "with_accuracy is for average: binary")
        return self


def num_classes(config: Config) -> int | None:
    """Return for how many classes it is, and no more; None for any number."""
    return 2 if config.average == "binary" else None


def score(predictions: Predictions, config: Config) -> Score:
    """Return the F1 in 0..1; undefined where no class, or not class 1, occurs or is predicted.

    Raises:
        DataError: there are more than two classes, and it is for two.
    """
    if config.average == "macro":
        return scored(predictions, _macro, "no class occurs")
    if config.average == "weighted":
        return scored(predictions, _weighted, "no class occurs")
    _check_two_classes(predictions)
    undefined = "no example is of class 1, and none is predicted to be"
    return scored(predictions, _with_accuracy if config.with_accuracy else _of_class_1, undefined)


def _macro(margins: Margins) -> "Floats":
    import numpy as np

    f1_KC = f1(margins)
    occurs_KC = ~np.isnan(f1_KC)
    return np.where(occurs_KC, f1_KC, 0).sum(-1) / occurs_KC.sum(-1)


def _weighted(margins: Margins) -> "Floats":
    import numpy as np

    f1_KC = np.nan_to_num(f1(margins))
    return (f1_KC * margins.true).sum(-1) / margins.true.sum(-1)


def _of_class_1(margins: Margins) -> "Floats":
    return f1(margins)[..., 1]


def _with_accuracy(margins: Margins) -> "Floats":
    return (accuracy(margins) + _of_class_1(margins)) / 2


def _check_two_classes(predictions: Predictions) -> None:
    """Refuse a third class.

    Raises:
        DataError: there are more than two classes.
    """
    labels, predicted = pairs(predictions)
    if strange := sorted({*labels, *predicted} - {0, 1}):
        raise DataError(
            f"F1 of class 1 is for the two classes 0 and 1, but {strange[0]} occurs too. "
            f"Name macro_f1 instead, under task.metrics."
        )
