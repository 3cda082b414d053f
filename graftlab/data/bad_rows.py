"""Rows that cannot be used: all are named together, left out up to `task.skip_bad`, or refused."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from graftlab.errors import DataError, Fault, Place

MAX_SHOWN = 10  # rows named in one message


class Bad(NamedTuple):
    """What cannot be used of a file, or of a split of other data."""

    where: str
    """What messages call the source."""
    rows: Sequence[tuple[int, str]] = ()
    """The index of each such row and why it cannot be used."""
    files: Mapping[int, str] = MappingProxyType({})
    """Of rows that are files, by index, their paths: nobody knows their numbers."""

    @property
    def named(self) -> list[str]:
        """Each row by its number, or its file, with its reason."""
        return [f"{self.files.get(i, f'row {i + 1}')}: {reason}" for i, reason in self.rows]

    @property
    def fault(self) -> Fault:
        """What is wrong: the first rows with their reasons, and how many there are."""
        what, count = "file" if self.files else "row", len(self.rows)
        lines = self.named[:MAX_SHOWN]
        lines += [f"and {count - MAX_SHOWN} more"] if count > MAX_SHOWN else []
        counted = f"1 {what}" if count == 1 else f"{count} {what}s"
        return Fault(
            "\n  ".join([f"{counted} cannot be used:", *lines]) + "\n",
            place=Place(self.where),
            kind="unusable",
            given=[index + 1 for index, _ in self.rows[:MAX_SHOWN]],
        )


def tolerate(splits: Mapping[str, Bad], skip_bad: int) -> dict[str, list[dict[str, object]]]:
    """Return the record of the splits' unusable rows.

    Raises:
        DataError: a split has more than `skip_bad`; says how many have to be left out of the worst one.
    """
    if faults := [bad.fault for bad in splits.values() if len(bad.rows) > skip_bad]:
        most = max(len(bad.rows) for bad in splits.values())
        remedy = (f"Mend the data, or leave such rows out with task.skip_bad: {most}.",)
        raise DataError([*faults[:-1], faults[-1].mended(remedy)])
    return {
        split: [
            {"row": index + 1, "reason": f"{bad.files[index]}: {reason}" if bad.files else reason}
            for index, reason in bad.rows
        ]
        for split, bad in splits.items()
    }
