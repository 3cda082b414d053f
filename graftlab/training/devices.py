"""Where a run computes: the freest GPU, or the CPU, in the precision that was asked for."""

import warnings
from typing import TYPE_CHECKING, Any

from graftlab.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def accelerator(precision: str) -> "Accelerator":
    """Return accelerate's handle on device, precision and processes.

    Raises:
        ConfigError: the device cannot compute in `precision`.
    """
    import torch
    from accelerate import Accelerator

    if torch.cuda.is_available() and torch.cuda.device_count() > 1 and not _launched():
        torch.cuda.set_device(_freest())
    if precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError(
            "training.precision: fp16 needs a GPU; this machine has none. Use bf16 or fp32."
        )
    if precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            f"training.precision: bf16 is not supported by {torch.cuda.get_device_name()}. "
            f"Use fp16 or fp32."
        )
    made = Accelerator(mixed_precision=PRECISION[precision])
    if made.num_processes > 1:
        raise ConfigError(
            f"this was started as {made.num_processes} processes; a run trains in one. "
            f"Start it with `graftlab run FILE`, without a launcher."
        )
    return made


def _launched() -> bool:
    import os

    return "LOCAL_RANK" in os.environ


def _freest() -> int:
    import torch

    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    return free.index(max(free))


def deterministic() -> list[str]:
    """Ask torch for deterministic algorithms; return what could not be made so, filled in as it happens."""
    import os

    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    found: list[str] = []
    show = warnings.showwarning

    def note(message: Any, *rest: Any, **named: Any) -> None:
        text = str(message).partition(".")[0]
        if "deterministic" not in text:
            show(message, *rest, **named)
        elif text not in found:
            found.append(text)

    warnings.showwarning = note
    return found


def peak_memory(device: Any) -> int:
    """Return the most bytes that the run has held: of the GPU where it has one, else of the process."""
    import resource
    import sys

    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
