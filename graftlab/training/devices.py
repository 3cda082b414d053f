"""Where a run computes: the freest GPU, or the CPU, in the precision that was asked for."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from graftlab.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def accelerator(precision: str, keep_casts: bool = True) -> "Accelerator":
    """Return accelerate's handle on device, precision and processes.

    In bf16 a weight's cast is kept from forward to backward pass; without `keep_casts` it is made again,
    where a process is not to hold all weights at a time.

    Raises:
        ConfigError: the device cannot compute in `precision`.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import AutocastKwargs

    if (
        torch.cuda.is_available()
        and torch.cuda.device_count() > 1
        and "LOCAL_RANK" not in os.environ
    ):
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
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    return Accelerator(
        mixed_precision=PRECISION[precision],
        kwargs_handlers=[AutocastKwargs(cache_enabled=keep_casts)],
    )


def beside() -> "torch.device":
    """Return where a model computes that is asked beside a run's own, as by a metric: on the run's device, or
    on what a run would take. A run's handle and its precision stay as they are."""
    from accelerate.state import PartialState, is_initialized

    device: torch.device = (PartialState() if is_initialized() else accelerator("fp32")).device
    return device


def _freest() -> int:
    import torch

    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    return free.index(max(free))


@contextlib.contextmanager
def deterministic(asked: bool) -> Iterator[list[str]]:
    """Have torch use deterministic algorithms inside, if asked; the list gets what could not be made so."""
    import torch

    found: list[str] = []
    if not asked:
        yield found
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    former = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    show = warnings.showwarning

    def note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = str(message).partition(".")[0]
        if "deterministic" not in text:
            show(message, category, filename, lineno, file, line)
        elif text not in found:
            found.append(text)

    warnings.showwarning = note
    try:
        yield found
    finally:
        warnings.showwarning = show
        torch.use_deterministic_algorithms(former[0])
        torch.backends.cudnn.benchmark = former[1]


def peak_memory(device: "torch.device") -> int:
    """Return the most bytes that the run has held: of the GPU where it has one, else of the process."""
    import resource
    import sys

    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
