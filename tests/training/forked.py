"""Processes that train together, forked off at once: for work that is small and needs no launcher."""

import os
import pickle
import select
import signal
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from graftlab.training.parallel.processes import Processes

PATIENCE = timedelta(seconds=20)
LONGEST = (
    240  # seconds that a process may take: a copy of one with threads may wait for a lock for ever
)


def together(
    folder: Path, work: Callable[[Processes], Any], world: int = 2, met: bool = True
) -> list[Any]:
    """Do `work` in each of `world` processes; return by rank what each has returned, None if it is gone.

    Unless they have `met`, they know of each other what a launcher says, and no more.
    """
    folder.mkdir(exist_ok=True)
    ends = []
    port = free_port()
    for rank in range(world):
        here, there = os.pipe()
        child = os.fork()
        if not child:
            os.close(here)
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            }  # fmt: skip
            store = folder / "store" if met else None
            _take_part(store, work, Processes(rank, world, torch.device("cpu")), there)
        os.close(there)
        ends.append((child, here))
    told = []
    for child, here in ends:
        with os.fdopen(here, "rb") as pipe:
            if not select.select([pipe], [], [], LONGEST)[0]:
                os.kill(child, signal.SIGKILL)
            content = pipe.read()
        os.waitpid(child, 0)
        told.append(pickle.loads(content) if content else (True, None))
    assert all(well for well, _ in told), "\n".join(str(value) for _, value in told)
    return [value for _, value in told]


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def _take_part(
    store: Path | None, work: Callable[[Processes], Any], processes: Processes, there: int
) -> None:
    rank, world = processes.share.rank, processes.share.world
    try:
        if store:
            place = dist.FileStore(str(store), world)
            dist.init_process_group(
                "gloo", store=place, rank=rank, world_size=world, timeout=PATIENCE
            )
        told = True, work(processes)
    except BaseException:
        told = False, traceback.format_exc()
    with os.fdopen(there, "wb") as pipe:
        pipe.write(pickle.dumps(told))
    os._exit(0)
