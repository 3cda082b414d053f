"""How this process was started: alone, or by a launcher as one of several that train together."""

import atexit
import datetime
import logging
import os
import time
from typing import TYPE_CHECKING

from graftlab.errors import ConfigError
from graftlab.training.parallel import request
from graftlab.training.parallel.share import Share

if TYPE_CHECKING:
    from graftlab.training.parallel.processes import Processes
    from graftlab.training.parallel.sharding import Sharding

log = logging.getLogger("graftlab")

REFUSED = {  # variables by which accelerate's launcher asks for what is not there
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_TP": "tensor parallelism",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism config",
}
IGNORED = {  # what a launcher may ask for and a run file says for itself
    "ACCELERATE_MIXED_PRECISION": ("no", "training.precision"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "training.micro_batch_size"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "training.compile"),
}
MPI = ("PMI", "OMPI_COMM_WORLD", "MV2_COMM_WORLD")  # prefixes of Intel MPI, Open MPI and MVAPICH
STOPPED = (130, 143)  # exit codes of SIGINT and SIGTERM, which all processes get
LINGER_S = 30.0
WAIT = datetime.timedelta(days=1)  # the others wait as long while the main one scores or saves


def place() -> Share:
    """Return this process's rank and how many there are, as torchrun, accelerate or MPI say it."""
    if "LOCAL_RANK" in os.environ:
        return Share(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if _asked("ACCELERATE_USE_CPU"):
        for name in MPI:
            if f"{name}_SIZE" in os.environ:
                return Share(int(os.environ[f"{name}_RANK"]), int(os.environ[f"{name}_SIZE"]))
    return Share()


def said_elsewhere(exit_code: int) -> bool:
    """Return whether the first process of this machine says that, and why, a run has ended.

    It mostly fails as this one does, and when it is gone, the launcher ends this one, which waits for
    that: who ends first takes the others along before they have spoken.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) == 0 or place().world == 1:
        return False
    if exit_code in STOPPED:
        return True
    time.sleep(LINGER_S)
    return False


def join() -> "Processes":
    """Meet the others that were launched with this process, if there are any.

    Raises:
        ConfigError: the launcher asks for what is not there, such as Megatron-LM, or for too few GPUs.
    """
    from graftlab.training.parallel.processes import Processes

    _refuse()
    asked = request.asked()
    if place().world == 1:
        if asked.kind != request.WHOLE:
            log.warning("%s has no effect in one process: it holds the whole model", asked.kind)
        return Processes()
    import torch
    from accelerate import PartialState

    device = torch.accelerator.current_accelerator(check_available=True)
    on_cpu = _asked("ACCELERATE_USE_CPU") or device is None or device.type == "mps"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not on_cpu and here > torch.accelerator.device_count():
        raise ConfigError(
            f"{here} processes were started on this machine, which has "
            f"{torch.accelerator.device_count()} GPUs: each needs one of its own. Start as many as "
            f"there are GPUs, or set ACCELERATE_USE_CPU=true."
        )
    state = PartialState(cpu=on_cpu, timeout=WAIT)
    kind = state.distributed_type.value
    if not kind.startswith("MULTI_"):
        raise ConfigError(_only(kind))
    made = Processes(state.process_index, state.num_processes, state.device)
    made.sharding = sharding(asked, made)
    atexit.register(_part, made)
    return made


def sharding(asked: request.Asked, processes: "Processes") -> "Sharding":
    """Return the way of sharing that a launcher asks for.

    Raises:
        ConfigError: it asks for a part of it that is not there.
    """
    if asked.kind == request.FSDP:
        from graftlab.training.parallel.fsdp import Fsdp

        return Fsdp(asked, processes)
    if asked.kind == request.ZERO:
        from graftlab.training.parallel.zero import Zero

        return Zero(asked, processes)
    from graftlab.training.parallel.sharding import Whole

    return Whole()


def only_one(command: str) -> str | None:
    """Return why a command cannot be launched as several processes; None where it can."""
    world = place().world
    if world == 1 or command in ("run", "resume"):
        return None
    return (
        f"`graftlab {command}` works in one process, and {world} were started. Start it without a "
        f"launcher; only run and resume train in several."
    )


def _refuse() -> None:
    for variable, name in REFUSED.items():
        if _asked(variable):
            raise ConfigError(_only(name))
    for variable, (usual, key) in IGNORED.items():
        if (value := os.environ.get(variable, usual)).lower() != usual:
            log.warning("%s=%s has no effect: the run file's %s counts", variable, value, key)
    mpi = any(f"{name}_SIZE" in os.environ for name in MPI)
    alone = "LOCAL_RANK" not in os.environ and not mpi
    if alone and {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys():
        log.warning(
            "accelerate was asked for several processes and has started one, as it does on CPU "
            "without MPI; see docs/several-processes.md for a command that starts them"
        )


def _only(name: str) -> str:
    return (
        f"the launcher asks for {name}, which is not there. Start with `accelerate launch --multi_gpu`, "
        f"or with one of the configs in recipes/accelerate (data parallel, FSDP, DeepSpeed)."
    )


def _asked(variable: str) -> bool:
    return request.said_yes(os.environ.get(variable, ""))


def _part(processes: "Processes") -> None:
    """Leave the group in order, as torch asks for; but not where another process is gone."""
    import torch.distributed as dist

    if dist.is_initialized() and not processes.broken:
        dist.destroy_process_group()
