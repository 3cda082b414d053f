"""Rows kept by column: what a split is before any tokenizer has seen it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from graftlab.contracts import Row

Numbered = tuple[int, dict[str, Any] | str]
"""A row's index in its source (from 0; for JSON Lines the line) and the row, or why it is none."""


class Rows(Sequence[Row]):
    """Examples as a sequence of dicts, stored by column (a third of the memory of dicts)."""

    def __init__(self, columns: Mapping[str, list[Any]]) -> None:
        lengths = {len(values) for values in columns.values()}
        assert len(lengths) <= 1, f"columns of different lengths: {lengths}"
        self.columns = dict(columns)
        self._length = lengths.pop() if lengths else 0

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...
    def __getitem__(self, index: int | slice) -> "Row | Rows":
        if isinstance(index, slice):
            return Rows({name: values[index] for name, values in self.columns.items()})
        return {name: values[index] for name, values in self.columns.items()}

    def take(self, positions: Iterable[int]) -> "Rows":
        """Return the rows at these positions, in this order."""
        positions = list(positions)
        return Rows({name: [values[i] for i in positions] for name, values in self.columns.items()})

    def called(self, position: int) -> int | str:
        """Return what a person calls a row: by its number in the source, from 1, or by its picture's file."""
        pictures = self.columns.get("image")
        if pictures and isinstance(pictures[position], Path):
            return str(pictures[position])
        return int(self.columns["index"][position]) + 1

    def without(self, name: str) -> "Rows":
        """Return the rows without a column."""
        return Rows({key: values for key, values in self.columns.items() if key != name})
