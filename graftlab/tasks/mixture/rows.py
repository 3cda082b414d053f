"""The rows of several tasks as those of one, and each example's place in its own task."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from graftlab.contracts import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Mixed(Sequence[Row]):
    """The rows of all tasks, one task after the other; each row has its `task`, and an `index` of its own."""

    def __init__(self, by_task: Mapping[str, Sequence[Row]]) -> None:
        self.by_task = dict(by_task)
        self._length = sum(map(len, self.by_task.values()))

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> "Row | list[Row]":
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        rest = place
        for name, rows in self.by_task.items():
            if rest < len(rows):
                return {**rows[rest], "index": place, "task": name}
            rest -= len(rows)
        raise IndexError(index)


class Changed(Sequence[Row]):
    """Rows of which each is changed when it is looked at."""

    def __init__(self, rows: Sequence[Row], change: Callable[[Row], Row]) -> None:
        self._rows, self._change = rows, change

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._change(self._rows[index])


def by_task(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Sequence[Row]]:
    """Return each task's rows, in their order."""
    if isinstance(rows, Mixed):
        return rows.by_task
    found: dict[str, list[Row]] = {name: [] for name in names}
    for row in rows:
        found[row["task"]].append(row)
    return dict(found)


class Places:
    """Which task each example of a split belongs to, and which of its own examples it is."""

    def __init__(self, parts: Sequence[int]) -> None:
        """`parts` has the number of each example's task."""
        import numpy as np

        self.parts: NDArray[np.int64] = np.asarray(parts, dtype=np.int64)
        self.own = np.zeros(len(self.parts), dtype=np.int64)
        for part in np.unique(self.parts):
            mine = self.parts == part
            self.own[mine] = np.arange(mine.sum())


def places(rows: Sequence[Row], names: Sequence[str], sizes: Sequence[int]) -> Places:
    """Return the places of a split's examples; `sizes` are how many of them each task uses.

    A task may leave rows out once it has seen their tokens; then, as in `Mixed`, one comes after the other.
    """
    if isinstance(rows, Mixed) or sum(sizes) != len(rows):
        return Places([part for part, size in enumerate(sizes) for _ in range(size)])
    return Places([names.index(row["task"]) for row in rows])
