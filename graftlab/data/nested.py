"""Fields within a column that holds several, named with dots: `data.text` in `{"data": {"text": ...}}`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

from graftlab.errors import nearest

MAX_LISTED = 20  # names in one message


def reached(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the row with those of the names that are fields within its columns. A column that is called so
    goes before."""
    found = dict(row)
    for name in names:
        if "." not in name or name in row:
            continue
        value: object = row
        for part in name.split("."):
            if not isinstance(value, Mapping) or part not in value:
                break
            value = value[part]
        else:
            found[name] = value
    return found


def fields(row: Mapping[str, Any]) -> list[str]:
    """Return the names of all fields within the columns of a row."""
    return [name for key, value in row.items() for name in _below(str(key), value)]


def _below(name: str, value: object) -> Iterator[str]:
    """Yield the fields below a value; none where it is one thing: a picture, or lists side by side."""
    if not is_nest(value):
        return
    for key, inner in value.items():
        below = f"{name}.{key}"
        yield from [below] if not is_nest(inner) else _below(below, inner)


def is_nest(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether a value is fields of which each may be a column. A picture as the hub has it is none,
    nor are lists side by side, as answers with their places are."""
    if not isinstance(value, Mapping) or not value:
        return False
    one_thing = {"bytes", "shape"} & value.keys() or all(
        isinstance(v, list) for v in value.values()
    )
    return not one_thing


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with fields in place of the columns that hold them."""
    whole = reached(row, fields(row))
    return {name: value for name, value in whole.items() if not is_nest(value)}


def hint(column: str, row: Mapping[str, Any]) -> str:
    """Return which fields a row has within its columns, where one may be meant by a column that it lacks, or
    by one that holds them."""
    names = fields(row)
    if column in row:
        names = [name for name in names if name.startswith(f"{column}.")]
    if not names:
        return ""
    same = next((name for name in names if name.rpartition(".")[2] == column), None)
    meant = same or nearest(column, names)
    shown = ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
    close = f" Did you mean {meant!r}?" if meant else ""
    return f"{close} Fields within columns are named with dots: {shown}."
