"""Runs in processes of their own, here or on a cluster, one or several at a time, each with its share."""

from graftlab.workers.child import FORKS, Ended, Orders, Stop, Watch, preload, unwatched
from graftlab.workers.crew import Crew
from graftlab.workers.engines import Engine, engine
from graftlab.workers.slots import Slot, shares

__all__ = [
    "FORKS", "Crew", "Ended", "Engine", "Orders", "Slot", "Stop", "Watch", "engine", "preload", "shares",
    "unwatched",
]  # fmt: skip
