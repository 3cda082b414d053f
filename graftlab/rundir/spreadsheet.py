"""Rows as CSV that a spreadsheet shows and does not run."""

import csv
import io
import re
from collections.abc import Iterable, Mapping

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""
NUMBER = re.compile(r"[+-]\d+([.,]\d+)?")
"""A number with its sign, which is no more than that as a formula, too."""


def text(
    rows: Iterable[Mapping[str, object]],
    columns: Iterable[str] = (),
    delimiter: str = ",",
    decimal: str = ".",
) -> str:
    """Return rows as CSV: these columns, then all others in the order in which rows bring them.

    `decimal` parts the decimals of numbers.
    """
    rows = list(rows)
    fields = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow(map(_harmless, fields))
    for row in rows:
        writer.writerow([_cell(row.get(field), decimal) for field in fields])
    return stream.getvalue()


def _cell(value: object, decimal: str) -> object:
    return str(value).replace(".", decimal) if isinstance(value, float) else _harmless(value)


def _harmless(value: object) -> object:
    """Return text so that no spreadsheet runs it."""
    if not isinstance(value, str) or NUMBER.fullmatch(value):
        return value
    return f"'{value}" if value.startswith(FORMULA) else value
