"""Where the runs of a study or a search are carried out, and how many of them at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from graftlab.config import Document
from graftlab.workers import child
from graftlab.workers.child import Ended, Orders, Stop, Watch, unwatched
from graftlab.workers.crew import Crew
from graftlab.workers.slots import Slot, shares


class Engine(Protocol):
    """Carries out runs."""

    slots: Sequence[Slot]
    """A thread of the caller's each."""
    alone: bool
    """Whether a run has its machine to itself, so that its time may be compared."""

    def carry_out(
        self,
        folder: Path,
        document: Document | None,
        orders: Orders,
        stop: Stop,
        watch: Watch = unwatched,
    ) -> Ended:
        """Run `document` into `folder`, or go on with what is there if it is None."""


class Here:
    """This machine."""

    def __init__(self, crew: Crew) -> None:
        self.slots: Sequence[Slot] = shares(1 if crew.workers is None else crew.workers)
        self.alone = len(self.slots) == 1 and not crew.share

    def carry_out(
        self, folder: Path, document: Document | None, orders: Orders, stop: Stop,
        watch: Watch = unwatched,
    ) -> Ended:  # fmt: skip
        """Run it in a process of its own."""
        return child.carry_out(folder, document, orders, stop, watch)


def engine(crew: Crew, out: Path, wanted: int | None = None) -> Engine:
    """Return what carries out runs below `out`; `wanted` of them may go on at a time where there is room.

    Raises:
        ConfigError: it cannot be had.
    """
    if crew.on is None:
        return Here(crew)
    from graftlab.workers.on_ray import Cluster

    return Cluster(crew, out, wanted)
