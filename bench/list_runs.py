"""`graftlab list runs` over a folder of 2,000 runs, all finished and none: seconds of processor time."""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from graftlab import config

RUNS, SECONDS = 2_000, 2.0
"""How many, and the goal."""
LOG = "2026-03-04 05:06:07,089 INFO graftlab: data: {}\n"
FAILED = "2026-03-04 05:07:00,000 ERROR graftlab: DataError: no column.\n" + "  a traceback\n" * 60
VALUES = config.read("glue/sst2-lora").values


def write(folder: Path, finished: bool) -> None:
    """Write the runs, each with the files that are looked at."""
    for number in range(RUNS):
        path = folder / f"run-{number:04d}"
        path.mkdir()
        (path / "config.yaml").write_text(TEXT.replace("NUMBER", str(number)), encoding="utf-8")
        (path / "run.log").write_text(LOG if finished else LOG + FAILED)
        scores = {
            name: {"value": number / RUNS, "standard_error": 0.01} for name in ("accuracy", "f1")
        }
        result = {"name": path.name, "task": "sst2", "method": "lora", "backbone": "roberta",
                  "seed": number, "parameters": {"trainable": 1, "total": 2}, "seconds": {"training": 1.0},
                  "facts": {}, "metrics": {"validation": scores, "test": scores}}  # fmt: skip
        if finished:
            (path / "result.json").write_text(json.dumps(result))


TEXT = config.dump({**VALUES, "name": "run-NUMBER"})


def measure(folder: Path, *arguments: str) -> float:
    """Return the processor seconds of the command, its start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "graftlab", "list", "runs", "--runs", str(folder), *arguments]
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    worst = 0.0
    for finished in (True, False):
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), finished)
            for arguments in ((), ("--where", "training.batch_size=32", "--sort", "-score")):
                seconds = measure(Path(name), *arguments)
                worst = max(worst, seconds)
                state = "finished" if finished else "failed"
                print(
                    f"{RUNS} runs, {state} {' '.join(arguments)}: {seconds:.2f} s (goal {SECONDS:g})"
                )
    if worst > SECONDS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
