"""Questions asked of trained weights: one file an analysis, found by name, answered as one table."""

import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.rundir import files, spreadsheet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from graftlab.contracts import Subject


def matrix(tensor: "Tensor") -> "NDArray[np.float64]":
    """Return a weight as a matrix (O, I) in float64; a vector is one column."""
    import numpy as np

    return np.asarray(tensor.detach().double().reshape(len(tensor), -1).cpu().numpy())


def number(weight: str) -> int | None:
    """Return which layer a weight is of: the first number in its name."""
    found = re.search(r"\.(\d+)\.", weight)
    return int(found[1]) if found else None


def module(weight: str) -> str:
    """Return the layer's own name, as in `q_proj`."""
    return weight.split(".")[-2] if "." in weight else weight


def last_of(subjects: "Sequence[Subject]") -> "list[Subject]":
    """Return each model at its last moment."""
    return list({subject.about.model: subject for subject in subjects}.values())


def columns(row: type[object]) -> Iterator[tuple[str, type]]:
    """Yield the name and the type of each column of a table: str, int, float or bool."""
    for name, annotation in typing.get_type_hints(row).items():
        united = typing.get_origin(annotation) in (typing.Union, types.UnionType)
        kinds = set(typing.get_args(annotation)) if united else {annotation}
        (kind,) = kinds - {type(None)}
        yield name, kind


def write(rows: Sequence[Any], row: type[object], folder: Path, name: str) -> list[Path]:
    """Write a table as NAME.csv and NAME.parquet, each whole or not at all; return where they are.

    An undefined cell is empty in the one and null in the other.
    """
    import pyarrow as pa
    from pyarrow import parquet

    table = spreadsheet.text((r._asdict() for r in rows), (column for column, _ in columns(row)))
    files.write_text(folder / f"{name}.csv", table)
    arrow = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(column, arrow[kind]) for column, kind in columns(row)])
    path = folder / f"{name}.parquet"
    with files.new_file(path) as partial:
        parquet.write_table(pa.Table.from_pylist([r._asdict() for r in rows], schema), partial)
    return [folder / f"{name}.csv", path]
