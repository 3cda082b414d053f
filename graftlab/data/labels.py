"""Labels as the data has them (integers, names, floats, text) to class integers or scores."""

import math
from collections.abc import Iterable, Mapping

from graftlab.errors import DataError, nearest

MAX_INFERRED = 1000


NESTED = (
    "the label {value!r:.60} is not one label: several a row (multi-label) are another problem, which is "
    "not trained here"
)


class Unusable(ValueError):
    """A value that makes its row unusable; the message says why."""


class Dropped(Exception):
    """The row is one that the task leaves out, by its label or for the reason that the message gives."""


def is_nested(value: object) -> bool:
    """Return whether a label is a list or a mapping, or has a length for another reason."""
    return hasattr(value, "__len__") and not isinstance(value, str)


def spell(value: object) -> str | None:
    """Return a label as text, `3` for 3, 3.0, True's `1`; None where there is none (null, NaN, empty)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    if text.endswith(".0") and text[:-2].lstrip("-").isdigit():
        text = text[:-2]
    return text or None


def names_of(labels: tuple[str, ...] | Mapping[str, str]) -> tuple[str, ...]:
    """Return class names in the order of their integers."""
    return tuple(dict.fromkeys(labels.values())) if isinstance(labels, Mapping) else labels


def infer(values: Iterable[object], drop: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Return the class names of train labels: numbers in their order, else sorted.

    Raises:
        DataError: fewer than two, or so many different ones that they cannot be classes.
    """
    single = (value for value in values if not is_nested(value))
    found = {spelled for value in single if (spelled := spell(value)) is not None}
    found -= {*drop, "-1"}
    if len(found) < 2:
        raise DataError(
            f"{where}: the label column has {len(found)} distinct labels; two are needed."
        )
    if len(found) > MAX_INFERRED or any(
        "." in name and _number(name) is not None for name in found
    ):
        raise DataError(
            f"{where}: labels such as {sorted(found)[0]!r} look like scores, not classes. "
            "Say `regression: true`, or give `labels:`.",
            kind="not_classes",
        )
    if all(_number(name) is not None for name in found):
        return tuple(sorted(found, key=float))
    return tuple(sorted(found))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class Classes:
    """Reads labels as class integers."""

    def __init__(
        self, labels: tuple[str, ...] | Mapping[str, str], drop: tuple[str, ...] = ()
    ) -> None:
        self.names = names_of(labels)
        order = {name: number for number, name in enumerate(self.names)}
        if isinstance(labels, Mapping):
            self._classes = {value: order[name] for value, name in labels.items()}
        else:
            self._classes = dict(order)
            # Names that are numbers themselves speak for themselves: `labels: ["1", "2"]` takes 1 and 2.
            if not all(name.lstrip("-").isdigit() for name in self.names):
                self._classes |= {str(number): number for number in order.values()}
        self._drop = set(drop)

    def is_hidden(self, value: object) -> bool:
        """Return whether there is no label: null, NaN, empty, or -1 where that is no class."""
        spelled = spell(value)
        known = spelled in self._classes or spelled in self._drop
        return spelled is None or (spelled == "-1" and not known)

    def __call__(self, value: object) -> int:
        """Return the class of a label.

        Raises:
            Dropped, Unusable
        """
        if is_nested(value):
            raise Unusable(NESTED.format(value=value))
        spelled = spell(value)
        if spelled is not None and spelled in self._classes:
            return self._classes[spelled]
        if spelled in self._drop:
            raise Dropped
        if self.is_hidden(value):
            raise Unusable(f"no label ({value!r})")
        if isinstance(value, int | float):
            raise Unusable(f"the label {value!r} is not one of {', '.join(self._classes)}")
        close = nearest(str(spelled), self._classes)
        hint = f"; did you mean {close!r}?" if close else ""
        raise Unusable(f"the label {value!r} is not one of {', '.join(self.names)}{hint}")


class Scores:
    """Reads labels as numbers (regression)."""

    names: tuple[str, ...] = ()

    def is_hidden(self, value: object) -> bool:
        """Return whether there is no score. -1 counts as none: that is how the hub hides a test set; a
        split with any other label is read as it stands."""
        return spell(value) in (None, "-1")

    def __call__(self, value: object) -> float:
        """Return the score.

        Raises:
            Unusable
        """
        number = None if spell(value) is None else _number(str(value))
        if number is None or not math.isfinite(number):
            raise Unusable(f"the label {value!r} is not a finite number")
        return number
