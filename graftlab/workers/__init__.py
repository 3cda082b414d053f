"""Runs in processes of their own, one or several at a time, each with its share of the machine."""

from graftlab.workers.child import FORKS, Ended, Orders, Stop, carry_out, preload
from graftlab.workers.slots import Slot, shares

__all__ = ["FORKS", "Ended", "Orders", "Slot", "Stop", "carry_out", "preload", "shares"]
