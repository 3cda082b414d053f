"""New inputs: rows without labels, and all that cannot be used named at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from graftlab.contracts import Row
from graftlab.data import nested, sources
from graftlab.data.bad_rows import Bad
from graftlab.data.labels import Dropped, Unusable
from graftlab.data.rows import Numbered
from graftlab.errors import DataError, Place, Words, in_row


def read(
    where: str,
    numbered: Iterable[Numbered],
    parse: Callable[[dict[str, Any]], dict[str, Any]],
    columns: Sequence[str] = (),
    files: Mapping[int, str] = MappingProxyType({}),
) -> list[Row]:
    """Return rows with `index` and `label` None beside what `parse` makes of them: it raises `Unusable` or
    `Dropped` with the reason why a row is none, and the first has the columns or names them.

    Raises:
        DataError: rows cannot be used, or there is none.
    """
    found: list[Row] = []
    bad: list[tuple[int, str]] = []
    for index, row in numbered:
        try:
            if isinstance(row, str):
                raise Unusable(row)
            row = nested.reached(row, columns)
            if not found and not bad:
                sources.check_columns(row, columns, where)
            if missing := [column for column in columns if column not in row]:
                raise Unusable(f"no column {missing[0]!r}; it has {', '.join(map(str, row))}")
            inputs = {key: value for key, value in parse(row).items() if key != "key"}
            found.append({"index": index, **inputs, "label": None})
        except (Unusable, Dropped) as reason:
            bad.append((index, str(reason)))
    refuse(Bad(where, bad, files))
    if not found:
        raise DataError(f"{where} has no rows.", kind="empty")
    return found


def refuse(bad: Bad, *remedies: Words, kind: str = "unusable") -> None:
    """Refuse inputs some of which cannot be used. `Raises:` DataError."""
    if not bad.rows:
        return
    fault = bad.fault
    fault = replace(fault, kind=kind, said=fault.said if remedies else fault.said.rstrip())
    if len(bad.rows) == 1:
        [(index, reason)] = bad.rows
        place = Place(bad.files[index]) if bad.files else in_row(bad.where, index)
        fault = replace(fault, said=f"{reason}.", place=place)
    raise DataError(fault.mended(*remedies))
