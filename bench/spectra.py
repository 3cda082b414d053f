"""Spectra of LoRA checkpoints on the shapes of Llama-3.2-1B, beside a full decomposition of both matrices.

python bench/spectra.py [--layers 16] [--rounds 1] [--threads 1]

The base has random weights (q, k, v and o of each layer), the adapter rank 8 and five checkpoints. The peer
does what the source's script does: numpy's full decomposition of the weight before and after, at each
checkpoint, and the same numbers of it. Both are whole processes, from start to exit, which take turns layer
by layer: one waits while the other computes, and time counts for the one that does. So a machine that slows
down slows both, and nothing is extrapolated. All 16 layers take some 20 minutes a round.

The last contestant is an adapter with the shapes of a 7B model, all linear layers, rank 16, without its base.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import Figures, Goal, run_child, write

CLAIM = (
    "Spectra of five LoRA checkpoints with the source's numbers, all others, and similarities over the top "
    "10 vectors come at least ten times as fast as by full decompositions, and every number of both is "
    "the same to 1e-4 (angles to 1e-3 radians), in 1 GiB of memory beside the base's. The changes of a "
    "7B-shaped adapter, whose base is not there, take at most 30 s."
)
OURS, PEER, LARGE = "graftlab", "numpy.linalg.svd of both", "graftlab, 7B-shaped adapter"
STEPS = (100, 200, 300, 400, 500)
SHAPES = {
    "q_proj": (2048, 2048),
    "k_proj": (512, 2048),
    "v_proj": (512, 2048),
    "o_proj": (2048, 2048),
}
SEVEN_B = {
    **{f"self_attn.{name}_proj": (4096, 4096) for name in "qkvo"},
    "mlp.gate_proj": (11008, 4096), "mlp.up_proj": (11008, 4096), "mlp.down_proj": (4096, 11008),
}  # fmt: skip
SHARED = (
    *(f"sv_{k}" for k in range(10)),
    *("effective_rank", "rank_95_energy", "spectral_norm", "condition_number", "sv_correlation"),
    *("right_space_similarity", "mean_principal_angle"),
)


def save(folder: Path, tensors: dict[str, Any], config: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    adapter = "peft_type" in config
    save_file(tensors, folder / ("adapter_model.safetensors" if adapter else "model.safetensors"))
    (folder / ("adapter_config.json" if adapter else "config.json")).write_text(json.dumps(config))


def prepare(folder: Path, layers: int) -> None:
    """Write the base, its five checkpoints, and the adapter of 7B shapes."""
    draws = np.random.default_rng(0)

    def drawn(*shape: int, size: float) -> Any:
        return draws.standard_normal(shape, dtype=np.float32) * np.float32(size)

    names = {f"model.layers.{k}.self_attn.{n}": s for k in range(layers) for n, s in SHAPES.items()}
    base = {f"{n}.weight": drawn(*shape, size=0.02) for n, shape in names.items()}
    save(folder / "base", base, {"model_type": "llama"})
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": None}
    factors = {n: (drawn(8, i, size=0.02), drawn(o, 8, size=0.01)) for n, (o, i) in names.items()}
    for step in STEPS:
        grown = {}
        for n, (a, b) in factors.items():
            grown[f"base_model.model.{n}.lora_A.weight"] = a
            grown[f"base_model.model.{n}.lora_B.weight"] = b * np.float32(step / STEPS[-1])
        save(folder / "trained" / f"checkpoint-{step}", grown, config)
    large = {
        f"base_model.model.model.layers.{k}.{n}.lora_{key}.weight": drawn(*size, size=0.02)
        for k in range(32)
        for n, (o, i) in SEVEN_B.items()
        for key, size in (("A", (16, i)), ("B", (o, 16)))
    }
    save(folder / "large", large, config | {"r": 16})


def layer_done() -> None:
    """Say that a layer is done, and wait for leave to go on."""
    print("done", flush=True)
    sys.stdin.readline()


def peer(folder: Path) -> None:
    """Do as the source does, and keep the numbers by step and weight."""
    from safetensors.numpy import load_file

    base, found = load_file(folder / "base" / "model.safetensors"), {}
    trained = folder / "trained"
    adapters = {
        step: load_file(trained / f"checkpoint-{step}" / "adapter_model.safetensors")
        for step in STEPS
    }
    for place, (name, before) in enumerate(sorted(base.items()), start=1):
        key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        for step, adapter in adapters.items():
            change = 2.0 * (adapter[f"{key}B.weight"].astype(float) @ adapter[f"{key}A.weight"])
            found[f"{step} {name}"] = dict(
                zip(SHARED, numbers(before.astype(float), change), strict=True)
            )
        if place % len(SHAPES) == 0:
            layer_done()
    (folder / "peer.json").write_text(json.dumps(found))


def numbers(before: Any, change: Any) -> Iterator[float]:
    from scipy.stats import spearmanr

    left, values, right = np.linalg.svd(before + change, full_matrices=False)
    left_0, values_0, right_0 = np.linalg.svd(before, full_matrices=False)
    yield from values[:10]
    yield int((values > 1e-5).sum())
    yield int(np.searchsorted(np.cumsum(values) / values.sum(), 0.95)) + 1
    yield values[0]
    yield values[0] / values[-1]
    yield spearmanr(values, values_0).statistic
    yield np.abs((right[:10] * right_0[:10]).sum(axis=1)).mean()
    cosines = np.linalg.svd(left[:, :10].T @ left_0[:, :10], compute_uv=False)
    yield np.arccos(np.clip(cosines, -1, 1)).mean()


def largest_difference(folder: Path) -> dict[str, float]:
    """Return how far our numbers are from the peer's: relative, and of angles in radians."""
    theirs = json.loads((folder / "peer.json").read_text())
    with (folder / "ours" / "svd_analysis" / "svd_analysis_results.csv").open(newline="") as file:
        ours = {f"{row['checkpoint']} {row['layer']}": row for row in csv.DictReader(file)}
    assert ours.keys() == theirs.keys()
    apart = dict.fromkeys(SHARED, 0.0)
    for key, numbers_of in theirs.items():
        for name, value in numbers_of.items():
            off = abs(float(ours[key][name]) - value)
            apart[name] = max(apart[name], off if "angle" in name else off / abs(value))
    return {"radians": apart.pop("mean_principal_angle"), "relative": max(apart.values())}


def ours(folder: Path, what: str) -> None:
    """Analyse in this process, with nothing kept from before."""
    from dataclasses import replace

    from graftlab import explanation
    from graftlab.contracts import Asked
    from graftlab.explanation.spool import Spool

    def said(done: int, _of: int) -> None:
        if what == "trained" and done and done % len(SHAPES) == 0:
            layer_done()

    how = replace(explanation.asked(Asked(null=False)), kept=None, said=said)
    base = str(folder / "base") if what == "trained" else None
    with Spool() as spool:
        models = explanation.find([str(folder / what)], explanation.Options(base), spool)
        out = folder / ("ours" if what == "trained" else "ours-large")
        explanation.carry_out(models, out, ["spectra"], how, figures=False)


def layer_by_layer(commands: dict[str, list[str]], layers: int, threads: int) -> dict[str, Figures]:
    """Run contestants as processes that take turns at every layer; return the figures of each.

    `seconds` is the time in which it was its turn: from its start to its first layer's end, from there on
    a layer at a time, and from its last one's to its exit.

    Raises:
        SystemExit: one of them failed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    children: dict[str, subprocess.Popen[str]] = {}
    seconds = dict.fromkeys(commands, 0.0)
    for turn in range(layers + 1):
        for label in list(commands)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            if turn == 0:
                children[label] = subprocess.Popen(
                    commands[label], env=environment, text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                )  # fmt: skip
            child = children[label]
            assert child.stdin is not None
            assert child.stdout is not None
            if turn:
                child.stdin.write("\n")
                child.stdin.flush()
            if turn < layers:
                if child.stdout.readline() != "done\n":
                    raise SystemExit(f"{label} ended in layer {turn + 1}")
                print(f"layer {turn + 1}/{layers}: {label}", flush=True)
            else:
                child.stdout.read()
            seconds[label] += time.perf_counter() - start
    return {label: {"seconds": seconds[label], **_used(child)} for label, child in children.items()}


def _used(child: "subprocess.Popen[str]") -> Figures:
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{child.args!r} ended with {child.returncode}")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"processors (s)": usage.ru_utime + usage.ru_stime, "peak memory (MiB)": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "FOLDER"))
    given = parser.parse_args()
    if given.child:
        what, folder = given.child
        if what == "prepare":
            prepare(Path(folder), given.layers)
        else:
            peer(Path(folder)) if what == "peer" else ours(Path(folder), what)
        return
    turns: dict[str, list[Figures]] = {OURS: [], PEER: [], LARGE: []}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child"]
        # In a process of its own: what this one has held would count to its children's peaks.
        making = [*command, "prepare", folder, "--layers", str(given.layers)]
        subprocess.run(making, check=True)
        both = {OURS: [*command, "trained", folder], PEER: [*command, "peer", folder]}
        base = (Path(folder) / "base" / "model.safetensors").stat().st_size / 2**20
        for _ in range(given.rounds):
            for label, figures in layer_by_layer(both, given.layers, given.threads).items():
                turns[label].append(figures)
            turns[LARGE].append(run_child([*command, "large", folder], given.threads))
        apart = largest_difference(Path(folder))
    for turn in turns[OURS]:
        turn |= {"relative difference": apart["relative"], "angle difference": apart["radians"]}
        turn["memory beside the base (MiB)"] = turn["peak memory (MiB)"] - base
    goals = [
        Goal("seconds", OURS, PEER, at_most=0.1),
        Goal("relative difference", OURS, compare="value", at_most=1e-4),
        Goal("angle difference", OURS, compare="value", at_most=1e-3),
        Goal("memory beside the base (MiB)", OURS, compare="value", at_most=1024),
        Goal("seconds", LARGE, compare="value", at_most=30),
    ]
    settings = {"layers": given.layers, "threads": given.threads, "checkpoints": len(STEPS)}
    name = "spectra" if given.threads == 1 else f"spectra_{given.threads}_threads"
    write(name, CLAIM, turns, goals, settings)


if __name__ == "__main__":
    main()
