"""Studies on disk that nobody has trained: runs with made-up scores, in files as real ones leave them."""

import json
import random
from pathlib import Path

from graftlab import config, study
from graftlab.rundir.run import Run
from graftlab.study import Comparison, Done, Plan

LABELS = ("five", "six", "seven")
STEPS, EXAMPLES = 20, 60


def make(
    folder: Path,
    methods: list[object],
    seeds: int = 3,
    skill: dict[str, float] | None = None,
    **more: object,
) -> tuple[Plan, list[Done]]:
    """Write a study of digits; `skill` is how often a method is right, by its name; .7 unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    base = {
        "backbone": {"kind": "tiny", "modality": "images"},
        "task": {"name": "digits"},
        "training": {"max_steps": STEPS, "batch_size": 8},
        "paths": {"runs": str(folder)},
    }
    values = {"base": base, "methods": methods, "seeds": list(range(seeds)), **more}
    (folder / "made.yaml").write_text(config.dump(values), encoding="utf-8")
    plan = study.read(folder / "made.yaml")
    done = []
    for planned in plan.runs:
        path = folder / "made" / "runs" / planned.name
        resolved = planned.file.resolved
        _write(Run(path), resolved, planned.seed, (skill or {}).get(planned.cell.method, 0.7))
        done.append(Done.of(planned, path))
    return plan, done


def compared(folder: Path, *arguments: object, **more: object) -> Comparison:
    """Write a study with its comparison, and return that; its directory is `made` in the folder."""
    plan, done = make(folder, *arguments, **more)
    found = study.compare(plan, done)
    study.write(found, folder / "made")
    return found


def _write(run: Run, resolved: dict[str, object], seed: int, skill: float) -> None:
    draws = random.Random(f"{run.path.name} {seed}")
    (run.path / "predictions").mkdir(parents=True)
    run.adapter.mkdir()
    (run.adapter / "manifest.json").write_text("{}")
    run.config.write_text(config.dump(resolved), encoding="utf-8")
    run.log.write_text(f"2026-03-04 05:06:0{seed % 10},089 INFO graftlab: data: {{}}\n")
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in _curve(draws, skill)))
    environment = {
        "packages": {"graftlab": "0.1.0", "torch": "2.13.0+cpu", "peft": "0.21.2"},
        "graftlab": {"version": "0.1.0", "commit": "c" * 40, "dirty_sha256": None},
        "data": {"problem": "classes", "labels": LABELS, "fingerprint": "f" * 64,
                 "sizes": {"train": 100, "validation": EXAMPLES, "test": EXAMPLES}},
        "backbone": {"source": "tiny", "revision": None, "sha256": {"tiny": "a" * 64}},
    }  # fmt: skip
    run.environment.write_text(json.dumps(environment), encoding="utf-8")
    metrics = {}
    for split in ("validation", "test"):
        rows = [_prediction(draws, index, skill) for index in range(EXAMPLES)]
        run.predictions(split).write_text("".join(json.dumps(row) + "\n" for row in rows))
        right = sum(row["prediction"] == row["label"] for row in rows) / EXAMPLES
        error = (right * (1 - right) / EXAMPLES) ** 0.5
        metrics[split] = {"accuracy": {"value": right, "standard_error": error}}
    task, method = resolved["task"], resolved["method"]
    run.leave({
        "name": run.path.name, "task": task["name"], "method": method["name"], "backbone": "tiny",
        "seed": seed, "processes": 1, "steps": STEPS, "ended_early": False, "selected_step": STEPS,
        "selected_by": "accuracy", "skipped_steps": 0, "facts": {}, "exact": True, "not_exact": [],
        "parameters": {"trainable": 100 * len(run.path.name), "total": 10_000}, "metrics": metrics,
        "not_deterministic": [], "seconds": {"training": draws.uniform(1, 3)}, "notes": [],
        "peak_memory_bytes": 2**29, "data": {"train": 100, "validation": EXAMPLES, "test": EXAMPLES},
    })  # fmt: skip


def _curve(draws: random.Random, skill: float) -> list[dict[str, float]]:
    lines: list[dict[str, float]] = []
    for step in range(1, STEPS + 1):
        lines.append({"step": step, "loss": 2 / step + draws.random() / 9, "learning_rate": 1e-3})
        if step % 5 == 0:
            lines.append(
                {
                    "step": step,
                    "validation/loss": 2 / step,
                    "validation/accuracy": skill * step / STEPS,
                }
            )
    return lines


def _prediction(draws: random.Random, index: int, skill: float) -> dict[str, object]:
    label = index % len(LABELS)
    said = label if draws.random() < skill else (label + 1) % len(LABELS)
    probabilities = [0.8 if place == said else 0.1 for place in range(len(LABELS))]
    loss = 0.2 if said == label else 2.3
    return {
        "index": index,
        "label": label,
        "prediction": said,
        "probabilities": probabilities,
        "loss": loss,
    }
