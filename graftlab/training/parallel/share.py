"""Which of the processes that train one run together this one is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """This process among all that train together."""

    rank: int = 0
    world: int = 1
