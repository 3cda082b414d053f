"""Run contestants in turns, each turn a child process, and keep the figures with the machine's description.

A contestant is a command. What it prints last on its standard output is a JSON object of figures; the
time from start to exit, that of processors, and the peak memory are measured from outside and added, unless
it has measured them of a process of its own. The order turns round by one each round, so that a machine that
slows down slows everyone. This module imports nothing large: a child starts as a copy of its parent, and the
kernel would count the parent's size as the child's peak.
"""

import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("graftlab", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
Figures = dict[str, float]
Contestants = Mapping[str, Callable[[int], Sequence[str]]]
"""Label -> the command of a round (rounds count from 0, and serve as seeds where seeds matter)."""


class Goal(NamedTuple):
    """What is claimed: `figure` of `ours`, alone or against a peer's in the same round."""

    figure: str
    ours: str
    peer: str | None = None
    compare: Literal["ratio", "difference", "value"] = "ratio"
    at_least: float | None = None
    at_most: float | None = None

    def values(self, turns: Mapping[str, Sequence[Figures]]) -> list[float]:
        """Return one value a round: ours / peer's, ours - peer's, or ours."""
        ours = [turn[self.figure] for turn in turns[self.ours]]
        if self.compare == "value":
            return ours
        assert self.peer is not None, self
        theirs = [turn[self.figure] for turn in turns[self.peer]]
        pairs = zip(ours, theirs, strict=True)
        return [a / b if self.compare == "ratio" else a - b for a, b in pairs]


def machine(threads: int) -> dict[str, Any]:
    """Return what the figures depend on, and nothing that names the machine or its folders."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory (GiB)": round(memory / 2**30, 1),
        "system": release.get("PRETTY_NAME", platform.system()),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def run_child(command: Sequence[str], threads: int, limit: float | None = None) -> Figures:
    """Run one turn; return its figures with `seconds` (start to exit), `processors (s)`, `peak memory (MiB)`.

    After `limit` seconds the child is killed with all that it has started.

    Raises:
        SystemExit: the child failed or was killed; the end of its error output is shown.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        child = subprocess.Popen(
            command, stdout=output, stderr=errors, env=environment, start_new_session=True
        )
        timer = threading.Timer(limit or 0, os.killpg, (child.pid, signal.SIGKILL))
        try:
            if limit is not None:
                timer.start()
            # Not child.wait(): only wait4 gives the usage of this child (and of what it waited for).
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)  # Ctrl-C does not reach another session
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0), errors.seek(0)
        if child.returncode:
            late = limit is not None and seconds >= limit
            ended = f"was killed after {limit:g} s" if late else f"ended with {child.returncode}"
            raise SystemExit(f"{' '.join(command)}\n{ended}:\n{errors.read()[-3000:]}")
        lines = output.read().splitlines()
    printed = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes there, KiB on Linux
    measured = {
        "seconds": seconds,
        "processors (s)": usage.ru_utime + usage.ru_stime,
        "peak memory (MiB)": usage.ru_maxrss / unit,
    }
    return {**printed, **{name: printed.get(name, value) for name, value in measured.items()}}


class Journal:
    """The turns that are done, in a file: a benchmark that was stopped goes on after them."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """What was measured with other settings, or other packages, is forgotten."""
        self.path = path
        self.head = json.dumps([settings, machine(settings["threads"])], sort_keys=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.done: dict[tuple[str, int], Figures] = {}
        whole = [line for line in lines[1:] if line.endswith("]")]  # the last may be cut off
        if lines[:1] == [self.head]:
            self.done = {(label, turn): f for label, turn, f in map(json.loads, whole)}
        else:
            whole = []
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in [self.head, *whole]), encoding="utf-8")

    def keep(self, label: str, turn: int, figures: Figures) -> None:
        """Add a turn; the warm-up is turn -1."""
        self.done[label, turn] = figures
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([label, turn, figures]) + "\n")

    def end(self) -> None:
        """Forget the turns: they stand in a result."""
        self.path.unlink()


def race(
    name: str,
    claim: str,
    contestants: Contestants,
    goals: Sequence[Goal],
    settings: Mapping[str, Any],
    rounds: int,
    threads: Sequence[int],
    warm_up: bool = True,
) -> None:
    """Measure at each number of threads: a result each, NAME at one and NAME_2_threads at two."""
    for count in threads:
        said = {**settings, "threads": count}
        called = name if count == 1 else f"{name}_{count}_threads"
        journal = Journal(RESULTS / f"{called}.partial", said)
        turns = in_turns(contestants, rounds, count, warm_up, journal)
        write(called, claim, turns, goals, said)
        journal.end()


def in_turns(
    contestants: Contestants,
    rounds: int,
    threads: int,
    warm_up: bool = True,
    journal: Journal | None = None,
) -> dict[str, list[Figures]]:
    """Return the figures of each contestant, one entry a round; `warm_up`: one more round, not kept.

    Turns that the journal has are not made again.
    """
    turns: dict[str, list[Figures]] = {label: [] for label in contestants}
    labels = list(contestants)
    for turn in range(-1 if warm_up else 0, rounds):
        for label in labels:
            figures = journal.done.get((label, turn)) if journal else None
            if figures is None:
                which = "warm-up" if turn < 0 else f"round {turn + 1}/{rounds}"
                print(f"{threads} threads, {which}: {label}", flush=True)
                figures = run_child(contestants[label](max(turn, 0)), threads)
                if journal:
                    journal.keep(label, turn, figures)
            if turn >= 0:
                turns[label].append(figures)
        labels.append(labels.pop(0))
    return turns


def write(
    name: str,
    claim: str,
    turns: Mapping[str, Sequence[Figures]],
    goals: Sequence[Goal],
    settings: Mapping[str, Any],
) -> Path:
    """Write `results/<name>.json` (every round's figures; medians are taken when it is read) and show it."""
    threads = settings["threads"]
    result = {
        "name": name,
        "claim": claim,
        "settings": settings,
        "machine": machine(threads),
        "goals": [goal._asdict() for goal in goals],
        "turns": turns,
    }
    return keep(result, RESULTS / f"{name}.json")


def keep(result: Mapping[str, Any], path: Path) -> Path:
    """Write a result to a file and show it as the page will."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n" + markdown(json.loads(path.read_text(encoding="utf-8"))))
    return path


def markdown(result: Mapping[str, Any]) -> str:
    """Return a result as a section: claim, what of it does not hold, contestants, goals, machine."""
    turns = result["turns"]
    figures = list(dict.fromkeys(figure for rows in turns.values() for figure in rows[0]))
    goals = [_goal_row(Goal(**goal), turns) for goal in result["goals"]]
    failed = result.get("failed", {})
    lines = [f"## {result['name']}", "", result["claim"], ""]
    lines += [line for row in goals if row[-1] == "no" for line in (_missed(row), "")]
    lines += [f"| | {' | '.join(figures)} |", "|---" * (len(figures) + 1) + "|"]
    for label, rows in turns.items():
        cells = [_spread([row[figure] for row in rows if figure in row]) for figure in figures]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", "| goal | measured | wanted | reached |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in goals]
    if failed:
        lines += ["", "Not measured:", ""]
        lines += [f"- {label}: {in_short(cause)}" for label, cause in failed.items()]
    rounds = len(next(iter(turns.values())))
    settings = ", ".join(f"{key} {value}" for key, value in result["settings"].items())
    lines += ["", f"Median (lowest to highest) of {rounds} rounds in turns. Settings: {settings}."]
    lines += [f"Machine: {_machine_line(result['machine'])}.", ""]
    return "\n".join(lines)


def in_short(cause: str) -> str:
    """Return how a part ended and what it said last."""
    ended, *said = cause.splitlines()
    return f"{ended}, `{said[-1].strip()}`" if said else ended


def _missed(row: tuple[str, str, str, str]) -> str:
    what, measured, wanted, _ = row
    return f"**Not reached:** {what} is {measured}, and {wanted} was wanted."


def _goal_row(goal: Goal, turns: Mapping[str, Sequence[Figures]]) -> tuple[str, str, str, str]:
    """Return what is claimed, what was measured, what was wanted, and whether that was reached."""
    values = goal.values(turns)
    # A difference of accuracies over seeds is one of means; a time or a memory is a median.
    middle = statistics.mean(values) if goal.compare == "difference" else statistics.median(values)
    low = goal.at_least is None or middle >= goal.at_least
    high = goal.at_most is None or middle <= goal.at_most
    wanted = [f"at least {goal.at_least:g}"] if goal.at_least is not None else []
    wanted += [f"at most {goal.at_most:g}"] if goal.at_most is not None else []
    sign = {"ratio": " / ", "difference": " − ", "value": ""}[goal.compare]  # noqa: RUF001
    reached = ("yes" if low and high else "no") if wanted else ""
    what = f"{goal.figure}: {goal.ours}{sign}{goal.peer or ''}"
    spread = f"{_digits(middle)} ({_digits(min(values))} to {_digits(max(values))})"
    return what, spread, " and ".join(wanted) or "only measured", reached


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    if min(values) == max(values):
        return _digits(values[0])
    middle, low, high = (_digits(f(values)) for f in (statistics.median, min, max))
    return f"{middle} ({low} to {high})"


def _digits(value: float) -> str:
    """Return three significant digits or all digits before the point, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _machine_line(machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    rest = ", ".join(f"{k} {v}" for k, v in machine.items() if k not in ("packages", "processor"))
    return f"{machine['processor']}, {rest}; {packages}"
