"""Rows as CSV that a spreadsheet shows and does not run."""

import csv
import io
from collections.abc import Iterable, Mapping

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def text(
    rows: Iterable[Mapping[str, object]], columns: Iterable[str] = (), delimiter: str = ","
) -> str:
    """Return rows as CSV: these columns, then all others in the order in which rows bring them."""
    rows = list(rows)
    fields = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow(map(_harmless, fields))
    writer.writerows([_harmless(row.get(field)) for field in fields] for row in rows)
    return stream.getvalue()


def _harmless(value: object) -> object:
    """Return text so that no spreadsheet runs it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
