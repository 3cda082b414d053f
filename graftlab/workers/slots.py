"""A machine shared out among runs that go on at the same time: threads, and GPUs where there are any."""

import os
from typing import NamedTuple

from graftlab.errors import Argument, ConfigError, Place

PART = "MIG-"
"""What the name of a part of a GPU begins with."""


class Slot(NamedTuple):
    """What one of the runs that go on at the same time may use."""

    number: int
    threads: int | None
    """Of computation; None leaves it to torch, for one run that has the machine to itself."""
    gpus: str | None = None
    """The GPUs that it sees, as CUDA_VISIBLE_DEVICES names them; None for all there are."""


def shares(workers: int) -> list[Slot]:
    """Return the slots of a machine: its cores in equal shares, its GPUs in turn.

    Raises:
        ConfigError: there is none to be had: `workers` is below 1.
    """
    if workers < 1:
        place = Place(argument=Argument("workers", workers))
        raise ConfigError("at least one worker is needed.", place=place, given=workers)
    if workers == 1:
        return [Slot(0, None)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads, gpus = max(1, (cores or 1) // workers), _gpus()
    return [
        Slot(number, threads, gpus[number % len(gpus)] if gpus else None)
        for number in range(workers)
    ]


def _gpus() -> list[str]:
    """Return the GPUs there are as CUDA_VISIBLE_DEVICES names them: numbers, UUIDs or parts of GPUs (MIG).

    CUDA sees those before the first that it does not know, but of parts only one in each process.
    """
    import torch

    count, given = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [str(number) for number in range(count)]
    names = [name.strip() for name in given.split(",")]
    return names if count and names[0].startswith(PART) else names[:count]
