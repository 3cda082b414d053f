"""What a study or a search takes beside its runs: between them, and at the end for tables and figures.

python bench/study_overhead.py [--data-dir ../shared/data/sst2] [--rounds 3] [--train-rows 6400]

Six runs of MiniLM with LoRA, one after another, each a process of its own. A run goes from its config.yaml
to its result.json; what is not within one is overhead. The start (imports, the file checked, the server that
processes are forked from) is there once, however many runs follow, and stands beside it.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Goal, in_turns, write
from settings import Settings, arguments

CLAIM = (
    "Seconds that `graftlab compare` and `graftlab tune` take beside what their six runs take: forking, "
    "checking and writing between them, tables, page and figures at the end. MiniLM with LoRA on SST-2."
)
STUDY, SEARCH = "study of six runs", "search of six trials"
COMMANDS = {STUDY: "compare", SEARCH: "tune"}
GOALS = [Goal("overhead (%)", label, compare="value", at_most=2) for label in COMMANDS]
RUNS = 6


def asked(label: str, settings: Settings) -> dict[str, object]:
    """Return the file of a study or a search."""
    base = {
        "backbone": {"model": "minilm"},
        "task": {
            "name": "sst2", "data_dir": settings.data_dir, "max_length": settings.max_length,
            "max_train_samples": settings.train_rows or None, "max_validation_samples": 400,
        },
        "method": {"name": "lora", "targets": ["query", "value"]},
        "training": {"epochs": settings.epochs, "batch_size": settings.batch_size},
    }  # fmt: skip
    if label == STUDY:
        return {"base": base, "seeds": list(range(RUNS))}
    rate = {"float": [1e-4, 1e-2], "log": True}
    return {"base": base, "space": {"training.learning_rate": rate}, "trials": RUNS,
            "pruner": {"name": "none"}}  # fmt: skip


def measure(label: str, settings: Settings) -> dict[str, float]:
    """Carry out a study or a search; return its figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "file.yaml").write_text(json.dumps(asked(label, settings)), encoding="utf-8")
        began = time.time()
        command = [sys.executable, "-m", "graftlab", COMMANDS[label], "file.yaml", "--out", "out"]
        subprocess.run(command, check=True, cwd=folder, stdout=sys.stderr)
        ended = time.time()
        runs = sorted(
            ((path / "config.yaml").stat().st_mtime, (path / "result.json").stat().st_mtime)
            for path in (folder / "out" / "runs").iterdir()
        )
    assert len(runs) == RUNS, runs
    within = sum(end - begin for begin, end in runs)
    return {
        "runs (s)": within,
        "start (s)": runs[0][0] - began,
        "between runs (s)": runs[-1][1] - runs[0][0] - within,
        "end (s)": ended - runs[-1][1],
        "overhead (%)": 100 * (ended - runs[0][0] - within) / within,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], Settings(**json.loads(sys.argv[3])))))
        raise SystemExit
    settings, rounds, (threads, *_) = arguments(
        __doc__, rounds=3, threads=[2], train_rows=6400
    )  # fmt: skip
    told = json.dumps(vars(settings))
    contestants = {
        label: lambda _, label=label: [sys.executable, __file__, "--measure", label, told]
        for label in COMMANDS
    }
    turns = in_turns(contestants, rounds, threads, warm_up=False)
    figures = ("runs (s)", "start (s)", "between runs (s)", "end (s)", "overhead (%)")
    kept = {label: [{f: turn[f] for f in figures} for turn in turns[label]] for label in turns}
    write("study_overhead", CLAIM, kept, GOALS, settings.public() | {"threads": threads})
