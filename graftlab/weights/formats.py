"""Number formats that this machine has no instructions for, and computes in many times slower."""

from pathlib import Path

CPU = Path("/proc/cpuinfo")
INSTRUCTIONS = {"bfloat16": ("bf16",), "float16": ("avx512_fp16", "amx_fp16", "asimdhp")}
"""What names of a processor's features say that it multiplies matrices of a format."""


def emulated(dtype: str) -> bool:
    """Return whether this machine has no instructions for products of matrices in `bfloat16` or `float16`.

    A GPU has them, as far as a run is begun on it; of a processor that does not say what it has, nothing is
    held against it.
    """
    if dtype not in INSTRUCTIONS:
        return False
    features = _features()
    if features is None or any(name in features for name in INSTRUCTIONS[dtype]):
        return False
    import torch

    return not torch.cuda.is_available()


def _features() -> str | None:
    try:
        return CPU.read_text(encoding="utf-8")
    except OSError:
        return None
