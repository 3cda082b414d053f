"""What a run was made with: packages, commits, device, threads. Runs that agree here agree in bytes."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "graftlab", "torch", "transformers", "peft", "accelerate", "tokenizers", "datasets", "numpy",
    "safetensors", "scikit-learn", "scipy", "pillow", "bitsandbytes",
)  # fmt: skip
DIFF_LIMIT = 200_000  # characters of an uncommitted change that are kept; its hash covers all of it


@functools.cache
def packages() -> Mapping[str, str]:
    """Return the versions of the packages that can change a number; those not installed are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@functools.cache
def commit(package: str) -> Mapping[str, Any]:
    """Return `version`, and for a package that runs from a git checkout its `commit`, the sha256 of what is
    not committed and the change itself."""
    record: dict[str, Any] = {"version": packages().get(package)}
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return record
    folder = Path(spec.origin).parent
    # a virtual environment inside some checkout is not that checkout's code
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return record
    record["commit"] = (_git(folder, "rev-parse", "HEAD") or "").strip() or None
    if change := _git(folder, "diff", "HEAD", "--", "."):
        record["dirty_sha256"] = hashlib.sha256(change.encode()).hexdigest()
        record["dirty_diff"] = change[:DIFF_LIMIT]
    return record


def short_hash(package: str) -> str:
    """Return the commit of a package, marked if it is not clean, or its version."""
    record = commit(package)
    if not record.get("commit"):
        return str(record["version"])
    return record["commit"][:12] + ("-dirty" if "dirty_sha256" in record else "")


def device(used: "torch.device") -> dict[str, object]:
    """Return the name and kind of the device that a run computes on."""
    import torch

    if used.type != "cuda":
        return {"type": used.type, "name": platform.processor() or platform.machine()}
    properties = torch.cuda.get_device_properties(used)
    return {
        "type": "cuda",
        "index": used.index or 0,
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }


def record(used: "torch.device") -> dict[str, object]:
    """Return what two runs must share to give the same bytes."""
    import torch

    return {
        "packages": packages(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device(used),
        "threads": {
            "torch": torch.get_num_threads(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "graftlab": dict(commit("graftlab")),
        "peft": dict(commit("peft")),
    }


class Difference(NamedTuple):
    """A leaf that two records do not share."""

    key: str
    """Dotted, from the top."""
    before: object
    now: object

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.now}"


def keys(values: Mapping[str, object], where: str = "") -> Iterator[str]:
    """Yield the dotted name of each key and of each section."""
    for key, value in values.items():
        yield f"{where}{key}"
        if isinstance(value, Mapping):
            yield from keys(value, f"{where}{key}.")


def differences(
    before: Mapping[str, object], now: Mapping[str, object], where: str = ""
) -> list[Difference]:
    """Return each leaf that is not the same, but for the text of an uncommitted change."""
    found = []
    for key in sorted(set(before) | set(now)):
        old, new, name = before.get(key), now.get(key), f"{where}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{name}.")
        elif old != new and key != "dirty_diff":
            found.append(Difference(name, old, new))
    return found
