"""Several workers: two beside one, sixty-four on one PostgreSQL, and the memory of a second one.

python bench/workers.py [--data-dir ../shared/data/sst2] [--rounds 3] [--train-rows 3200]
    [--workers 64] [--trials 2000] [--sleep 30]

Sixty-four workers are simulated: processes that do all that a worker of `graftlab tune` does, but for its
runs, which only sleep. What a worker waits goes from the end of one trial's run to the beginning of its next.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import Goal, in_turns, write
from settings import ROOT, Settings
from study_overhead import STUDY, asked

CLAIM = (
    "Two single-threaded workers beside one, each with a core: MiniLM with LoRA on SST-2, four runs; and "
    "what the second adds to memory (PSS of /proc/PID/smaps_rollup: what is shared is counted once), beside "
    "what the run of one holds of its own."
)
OF_MANY = "Many workers of one search, by TPE, on one PostgreSQL; their runs only sleep."
ONE, TWO, MANY = "one worker", "two workers", "workers that sleep"
GOALS = [
    Goal("runs a minute", TWO, ONE, at_least=1.7),
    Goal("memory (MiB)", TWO, ONE, "difference"),
]
GOALS_OF_MANY = [
    Goal("lost or doubled", MANY, compare="value", at_most=0),
    Goal("wait for a trial (ms)", MANY, compare="value", at_most=100),
]
RUNS = 4


def held(out: Path) -> dict[str, float]:
    """Return the MiB that the processes at work on runs hold: in all, and of their own."""
    found = {"Pss": 0, "Private_Dirty": 0}
    for lock in out.glob("runs/*/lock"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended in between
            number = lock.read_text().split()[1]
            for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()[1:]:
                name, size, _ = line.split()
                if name[:-1] in found:
                    found[name[:-1]] += int(size)
    return {name: size / 1024 for name, size in found.items()}


def study(workers: int, settings: Settings) -> dict[str, float]:
    """Carry out a study by so many workers; return its figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = asked(STUDY, settings) | {"seeds": list(range(RUNS))}
        (folder / "file.yaml").write_text(json.dumps(file), encoding="utf-8")
        command = [sys.executable, "-m", "graftlab", "compare", "file.yaml", "--out", "out"]
        working = subprocess.Popen(
            [*command, "--workers", str(workers)], cwd=folder, stdout=sys.stderr
        )
        peak = {"Pss": 0.0, "Private_Dirty": 0.0}
        while working.poll() is None:
            now = held(folder / "out")
            peak = {name: max(peak[name], now[name]) for name in peak}
            time.sleep(0.2)
        assert working.returncode == 0
        paths = list((folder / "out" / "runs").iterdir())
        began = min((path / "config.yaml").stat().st_mtime for path in paths)
        ended = max((path / "result.json").stat().st_mtime for path in paths)
    return {
        "runs a minute": 60 * RUNS / (ended - began),
        "memory (MiB)": peak["Pss"],
        "of their own (MiB)": peak["Private_Dirty"],
    }


class Sleeps:
    """Carries out runs by sleeping, and keeps when each began and ended."""

    alone = False

    def __init__(self, seconds: float) -> None:
        from graftlab.workers import Slot

        self.slots, self.seconds = [Slot(0, 1)], seconds

    def carry_out(self, folder: Path, *_: object) -> Any:
        """Sleep, and write a score that the folder's name gives."""
        from graftlab.workers import Ended

        began = time.time()
        drawn = int(folder.name[-8:], 16) / 2**32
        time.sleep(self.seconds * (0.5 + drawn))
        folder.mkdir(parents=True, exist_ok=True)
        scores = {"validation": {"accuracy": {"value": drawn}}}
        (folder / "result.json").write_text(json.dumps({"metrics": scores}))
        line = json.dumps([folder.name, os.getpid(), began, time.time()])
        with (folder.parents[1] / "carried-out.jsonl").open("a") as file:
            file.write(f"{line}\n")
        return Ended(None)


def work(url: str, folder: Path, seconds: float) -> None:
    """Be a worker."""
    from graftlab import search
    from graftlab.search import trials

    os.chdir(folder)
    trials.engine = lambda *_: Sleeps(seconds)  # type: ignore[attr-defined, assignment]
    search.carry_out(search.read("search.yaml"), Path("out"), url, quiet=True)


def sleeping(workers: int, count: int, seconds: float) -> dict[str, float]:
    """Have workers share a search whose runs sleep; return how long they waited and what went wrong."""
    import graftlab.search.trials  # noqa: F401  (once, before they are forked)

    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name, database() as url:
        folder = Path(name)
        rows = "".join(f"{word},{n % 2}\n" for n, word in enumerate(["good", "bad"] * 8))
        (folder / "train.csv").write_text(f"text,label\n{rows}")
        file = {
            "base": {
                "backbone": {"kind": "tiny"},
                "task": {"kind": "classification", "files": {"train": "train.csv", "test": "train.csv"}},
                "method": {"name": "lora"},
                "training": {"max_steps": 1},
            },
            "space": {"training.learning_rate": {"float": [1e-4, 1e-1], "log": True},
                      "method.alpha": {"float": [1, 64], "log": True}},
            "objective": ["accuracy"], "pruner": {"name": "none"}, "trials": count,
        }  # fmt: skip
        (folder / "search.yaml").write_text(json.dumps(file))
        all_of_them = [
            context.Process(target=work, args=(url, folder, seconds)) for _ in range(workers)
        ]
        for one in all_of_them:
            one.start()
        for one in all_of_them:
            one.join()
        assert all(one.exitcode == 0 for one in all_of_them), [one.exitcode for one in all_of_them]
        lines = (folder / "out" / "carried-out.jsonl").read_text().splitlines()
    done = sorted((json.loads(line) for line in lines), key=lambda row: row[2])
    ended: dict[int, float] = {}
    waits = []
    for _, worker, began, end in done:
        if worker in ended:
            waits.append(1000 * (began - ended[worker]))
        ended[worker] = end
    doubled = len(done) - len({row[0] for row in done})
    return {
        "trials": len(done),
        "lost or doubled": abs(count - len(done)) + doubled,
        "wait for a trial (ms)": statistics.median(waits),
        "longest wait (ms)": max(waits),
    }


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Yield the URL of a PostgreSQL server of our own."""
    sys.path.append(str(ROOT / "tests"))
    import postgres

    with postgres.server() as running:
        yield running.url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=ROOT.parent / "shared" / "data" / "sst2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-rows", type=int, default=3200)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sleep", type=float, default=30.0)
    parser.add_argument("--measure", choices=[ONE, TWO, MANY])
    given = parser.parse_args()
    settings = Settings(str(given.data_dir.resolve()), train_rows=given.train_rows)
    if given.measure == MANY:
        print(json.dumps(sleeping(given.workers, given.trials, given.sleep)))
    elif given.measure:
        print(json.dumps(study(2 if given.measure == TWO else 1, settings)))
    else:
        again = [sys.executable, __file__, *sys.argv[1:], "--measure"]
        studies = {label: lambda _, label=label: [*again, label] for label in (ONE, TWO)}
        turns = in_turns(studies, given.rounds, 1, warm_up=False)
        told = {"rows": given.train_rows, "threads": 1}
        write("workers", CLAIM, without(turns), GOALS, told)
        turns = in_turns({MANY: lambda _: [*again, MANY]}, 1, 1, warm_up=False)
        told = {"workers": given.workers, "seconds a run": given.sleep, "threads": 1}
        write("search_workers", OF_MANY, without(turns), GOALS_OF_MANY, told)


def without(turns: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
    """Return figures without those of the script that has measured them."""
    own = ("seconds", "processors (s)", "peak memory (MiB)")
    return {
        label: [{k: v for k, v in turn.items() if k not in own} for turn in rows]
        for label, rows in turns.items()
    }


if __name__ == "__main__":
    main()
