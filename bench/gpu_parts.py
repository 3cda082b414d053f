"""The parts of on_gpu.py that are no race: each asks one question of the machine, in a process of its own.

python bench/gpu_parts.py PART '{"model": ..., "data": ..., ...}' prints figures as JSON.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sft_settings import Settings, run_file

GRAFTLAB = (sys.executable, "-m", "graftlab")
ALONE = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1")
SAME = ("adapter/adapter_model.safetensors", "metrics.jsonl")
GIB = 2**30


def written(settings: Settings, folder: Path, **sections: dict[str, object]) -> Path:
    """Write the run file with sections laid over its own, and return its path."""
    document = run_file(settings)
    for name, section in sections.items():
        document[name] = document.get(name, {}) | section
    path = folder / "run.yaml"
    path.write_text(json.dumps({**document, "deterministic": True}), encoding="utf-8")
    return path


def told(command: Sequence[str | Path]) -> None:
    """Carry out a command; where it fails, what it said last is what this process says last."""
    code = subprocess.run([str(word) for word in command], stdout=sys.stderr).returncode
    if code:
        sys.exit(code)


def same_bytes(run: Path, other: Path) -> float:
    """Return 1 if two runs have the same adapter and metrics, else 0."""
    digests = [
        [hashlib.sha256((place / name).read_bytes()).digest() for name in SAME]
        for place in (run, other)
    ]
    return float(digests[0] == digests[1])


def resume(settings: Settings) -> dict[str, float]:
    """A run that is killed halfway and gone on with, beside the same run left alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = settings.rows // settings.batch_size
        file = written(settings, folder, training={"save_every": max(1, steps // 8)})
        whole, killed = folder / "whole", folder / "killed"
        told([*GRAFTLAB, "run", file, "--out", whole])
        command = [*GRAFTLAB, "run", str(file), "--out", str(killed)]
        child = subprocess.Popen(command, stdout=sys.stderr)
        timing = killed / "timing.jsonl"
        while child.poll() is None:
            if timing.exists() and timing.read_bytes().count(b'"examples"') >= steps // 2:
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        if child.wait() != -signal.SIGKILL:
            raise SystemExit(f"the run ended with {child.returncode} before it could be killed")
        told([*GRAFTLAB, "resume", killed])
        return {"same bytes": same_bytes(whole, killed)}


def launched(settings: Settings) -> dict[str, float]:
    """A run under torchrun with one process (NCCL on a GPU), beside the same run without a launcher."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = written(settings, folder)
        told([*GRAFTLAB, "run", file, "--out", folder / "plain"])
        told([*ALONE, "-m", "graftlab", "run", file, "--out", folder / "launched"])
        group = subprocess.run(
            [*ALONE, __file__, "group", "{}"], check=True, capture_output=True, text=True
        )
        found = json.loads(group.stdout.splitlines()[-1])
        return found | {"same bytes": same_bytes(folder / "plain", folder / "launched")}


def group() -> dict[str, float]:
    """The process group that accelerate makes under a launcher: is it NCCL, and does it add up?"""
    import torch
    import torch.distributed as dist
    from accelerate import PartialState

    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    state = PartialState(cpu=not torch.cuda.is_available())
    values = torch.arange(2**20, dtype=torch.float32, device=state.device)
    expected = values.clone()
    dist.all_reduce(values)
    if not torch.equal(values, expected):
        raise SystemExit("a sum over one process is not what that process gave")
    nccl = float(dist.get_backend() == "nccl")
    dist.destroy_process_group()
    return {"NCCL": nccl}


def plan(settings: Settings, method: str = "lora") -> dict[str, float]:
    """What `graftlab plan` foresees of the steps' memory, beside what they take."""
    import plan_accuracy

    from graftlab import config, runfile

    with tempfile.TemporaryDirectory() as name:
        section = {} if method == "lora" else {"name": method}
        path = written(settings, Path(name))
        document = json.loads(path.read_text(encoding="utf-8"))
        document["method"] = section or document["method"]
        path.write_text(json.dumps(document | {"deterministic": False}), encoding="utf-8")
        file = runfile.resolve(config.read(str(path)))
        foreseen, real = plan_accuracy.predicted(file), plan_accuracy.measured(file)
    return {
        "predicted (GiB)": foreseen / GIB,
        "measured (GiB)": real / GIB,
        "error (%)": 100 * abs(foreseen / real - 1),
    }


def device() -> dict[str, str]:
    """Return what computes: the GPU with its driver and memory, or the CPU."""
    import importlib.metadata

    import torch

    found = {}
    for package in ("trl", "bitsandbytes", "flash-attn", "triton"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    if not torch.cuda.is_available():
        return {"gpu": "none", **found}
    properties = torch.cuda.get_device_properties(0)
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.split()[0]
    return {
        "gpu": properties.name,
        "gpu memory (GiB)": f"{properties.total_memory / GIB:.1f}",
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver,
        "cuda": str(torch.version.cuda),
        **found,
    }


PARTS = {
    "resume": resume,
    "launched": launched,
    "plan": plan,
    "plan_full": lambda settings: plan(settings, "full"),
    "group": lambda _: group(),
    "device": lambda _: device(),
}

if __name__ == "__main__":
    part, told_settings = sys.argv[1], json.loads(sys.argv[2])
    settings = Settings(**{"model": "", "data": "", **told_settings})
    print(json.dumps(PARTS[part](settings)))
