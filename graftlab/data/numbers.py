"""Numbers as tables spell them: with a decimal point, or a whole column of them with a decimal comma."""

import re
from collections.abc import Iterable
from typing import Literal

Mark = Literal[".", ","]

COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")


def mark_of(values: Iterable[object]) -> Mark:
    """Return what parts the decimals of a column: the comma where nothing else can be meant.

    That is where one value can be no thousands (3,5 but not 1,234), and none has a point.
    """
    seen = [value for value in values if isinstance(value, str | float)]
    texts = (value.strip() for value in seen if isinstance(value, str))
    if all(THOUSANDS.fullmatch(text) for text in texts if COMMA.fullmatch(text)):
        return "."
    points = (text for text in map(str, seen) if "." in text and number(text, ".") is not None)
    return "." if any(points) else ","


def number(text: str, mark: Mark) -> float | None:
    """Return the number that a text is, None where it is none; not finite where it says so."""
    if mark == "," and COMMA.fullmatch(text.strip()):
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return None
