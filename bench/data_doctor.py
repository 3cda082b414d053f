"""`graftlab check` on a table of 200,000 rows: seconds and memory, with the data doctor's notes."""

import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = 200_000
SECONDS, BYTES = 5.0, 2**30
"""The goals."""


def write(folder: Path) -> Path:
    """Write the table and a run file of it."""
    draw = random.Random(0)
    words = [f"word{number}" for number in range(5000)]
    with (folder / "train.csv").open("w", encoding="utf-8") as file:
        file.write("text;label\n")
        for row in range(ROWS):
            file.write(f"{' '.join(draw.choices(words, k=15))} {row};{'abc'[row % 3]}\n")
    run = folder / "run.yaml"
    run.write_text(
        "backbone: {kind: tiny}\nmethod: {name: lora}\n"
        f"task: {{kind: classification, data_dir: {json.dumps(str(folder))}, test_share: 0.1}}\n"
    )
    return run


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = write(Path(folder))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "graftlab", "check", str(run), "--json"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = after.ru_maxrss * 1024
    kinds = ", ".join(note["kind"] for note in found["notes"])
    print(f"{ROWS} rows: {seconds:.1f} s of processor time (goal {SECONDS:g}), ", end="")
    print(f"{peak / 2**20:.0f} MiB (goal {BYTES / 2**20:.0f}); notes: {kinds}")
    if seconds > SECONDS or peak > BYTES:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
