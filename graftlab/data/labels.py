"""Labels as the data has them (integers, names, floats, text) to class integers or scores."""

import math
from collections.abc import Iterable, Mapping

from graftlab.data import numbers
from graftlab.errors import DataError, nearest

MAX_INFERRED = 1000
TRUTHS = {"true": True, "false": False}

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


def spelled(name: str) -> str:
    """Return the name of a class as `spell` returns the label that means it: `1.0` is 1."""
    return spell(name) or name


def names_of(labels: tuple[str, ...] | Mapping[str, str]) -> tuple[str, ...]:
    """Return class names in the order of their integers."""
    return tuple(dict.fromkeys(labels.values())) if isinstance(labels, Mapping) else labels


def infer(values: Iterable[object], drop: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Return the class names of train labels: numbers in their order, else sorted.

    Raises:
        DataError: fewer than two, or so many different ones that they cannot be classes.
    """
    single = (value for value in values if not is_nested(value))
    found = {text for value in single if (text := spell(value)) is not None}
    found -= {*map(spelled, drop), "-1"}
    if len(found) < 2:
        raise DataError(
            f"{where}: the label column has {len(found)} distinct labels; two are needed."
        )
    mark = numbers.mark_of(found)
    if len(found) > MAX_INFERRED or any(
        mark in name and numbers.number(name, mark) is not None for name in found
    ):
        raise DataError(
            f"{where}: labels such as {sorted(found)[0]!r} look like scores, not classes. "
            "Say `regression: true`, or give `labels:`.",
            kind="not_classes",
        )
    if all(numbers.number(name, ".") is not None for name in found):
        return tuple(sorted(found, key=float))
    return tuple(sorted(found))


def _is_number(name: str) -> bool:
    """Return whether a name is a number; `nan` and `inf` are words."""
    number = numbers.number(name, ".")
    return number is not None and math.isfinite(number)


class Classes:
    """Reads labels as class integers."""

    def __init__(
        self, labels: tuple[str, ...] | Mapping[str, str], drop: tuple[str, ...] = ()
    ) -> None:
        self.names = names_of(labels)
        order = {name: number for number, name in enumerate(self.names)}
        given = labels if isinstance(labels, Mapping) else {name: name for name in self.names}
        self._classes = {spelled(value): order[name] for value, name in given.items()}
        # Names that are numbers themselves speak for themselves: `labels: ["1", "2"]` takes 1 and 2.
        if not isinstance(labels, Mapping) and not any(map(_is_number, self._classes)):
            self._classes |= {str(number): number for number in order.values()}
        self._drop = set(map(spelled, drop))
        known = (*self._classes, *self._drop)
        self._truths = {TRUTHS[w]: name for name in known if (w := name.casefold()) in TRUTHS}

    def _spelled(self, value: object) -> str | None:
        """Return a label as the classes have it; true and false by name where one is called so."""
        if isinstance(value, bool) and self._truths:
            return self._truths.get(value, str(value))
        return spell(value)

    def is_hidden(self, value: object) -> bool:
        """Return whether there is no label: null, NaN, empty, or -1 where that is no class."""
        text = self._spelled(value)
        known = text in self._classes or text in self._drop
        return text is None or (text == "-1" and not known)

    def __call__(self, value: object) -> int:
        """Return the class of a label.

        Raises:
            Dropped, Unusable
        """
        if is_nested(value):
            raise Unusable(NESTED.format(value=value))
        text = self._spelled(value)
        if text is not None and text in self._classes:
            return self._classes[text]
        if text in self._drop:
            raise Dropped
        if self.is_hidden(value):
            raise Unusable(f"no label ({value!r})")
        if isinstance(value, int | float):
            raise Unusable(f"the label {value!r} is not one of {', '.join(self._classes)}")
        close = nearest(str(text), self._classes)
        hint = f"; did you mean {close!r}?" if close else ""
        raise Unusable(f"the label {value!r} is not one of {', '.join(self.names)}{hint}")


class Scores:
    """Reads labels as numbers (regression)."""

    names: tuple[str, ...] = ()

    def __init__(self, values: Iterable[object] = ()) -> None:
        """Take the column's values, which tell whether its decimals have a comma."""
        self.mark = numbers.mark_of(values)

    def is_hidden(self, value: object) -> bool:
        """Return whether there is no score. -1 counts as none: that is how the hub hides a test set; a
        split with any other label is read as it stands."""
        text = spell(value)
        return text is None or numbers.number(text, self.mark) == -1

    def __call__(self, value: object) -> float:
        """Return the score.

        Raises:
            Unusable
        """
        number = None if spell(value) is None else numbers.number(str(value), self.mark)
        if number is None or not math.isfinite(number):
            raise Unusable(f"the label {value!r} is not a finite number{self._hint(str(value))}")
        return number

    def _hint(self, text: str) -> str:
        """Return what to write for a number with commas that is not read as one."""
        text = text.strip()
        if numbers.THOUSANDS.fullmatch(text):
            ways = [text.replace(",", ".")] if text.count(",") == 1 else []
            return f": write {' or '.join([*ways, text.replace(',', '')])}, as it is meant"
        if numbers.COMMA.fullmatch(text):
            return ": other labels have a decimal point. Write all of them with it"
        return ""
