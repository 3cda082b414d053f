"""Killed and resumed equals never killed: the promise of exact resume, for every registered method.

    from graftlab.testing.resume import *  # in a test file; pytest -k my_method

Each case forks a child and ends it with SIGKILL in the middle of a real run.
"""

import os
import random
import signal
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from graftlab import config, inference, registry, runfile
from graftlab.config import merge
from graftlab.rundir.run import Run
from graftlab.runs import evaluation, session
from graftlab.testing import rig
from graftlab.training.step import Stepper

WORDS = (("fine", "glad", "warm", "kind"), ("poor", "sad", "cold", "harsh"))
OPTIONS = session.Options(quiet=True)
WHOLE = ("metrics.jsonl", "predictions/test.jsonl")

RUN: dict[str, object] = {
    "name": "tiny",
    "backbone": {"kind": "tiny", "width": 16, "layers": 1, "max_length": 96, "dropout": 0.1},
    "task": {"kind": "classification"},
    "training": {
        "max_steps": 12,
        "batch_size": 8,
        "micro_batch_size": 4,
        "learning_rate": 0.01,
        "logging_every": 1,
        "evaluate_every": 4,
        "save_every": 3,
    },
}


def run_file(folder: Path, changes: Mapping[str, object]) -> runfile.RunFile:
    """Return a run file of 12 steps on sentences whose words tell the label, all below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for seed, (split, count) in enumerate({"train": 40, "validation": 8, "test": 8}.items()):
        draw, lines = random.Random(seed), ["text,label"]
        for index in range(count):
            words = [draw.choice(WORDS[index % 2]) for _ in range(draw.randint(1, 6))]
            lines.append(f"{' '.join(words)} {seed}{index},{('good', 'bad')[index % 2]}")
        files[split] = str(folder / f"{split}.csv")
        Path(files[split]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = {"task": {"files": files}, "paths": {"runs": str(folder / "runs")}}
    path = folder / "run.yaml"
    path.write_text(config.dump(merge(merge(RUN, given), changes)), encoding="utf-8")
    return runfile.resolve(config.read(path))


def in_child(work: Callable[[], object]) -> int:
    """Do `work` in a forked process; return its exit code, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a child that ends itself once a step is done, before it is counted or saved."""

    def doomed() -> None:
        real = Stepper.step

        def dying(self: Stepper, number: int, rate: float) -> object:
            done = real(self, number, rate)
            if number == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        Stepper.step = dying  # type: ignore[assignment,method-assign]
        work()

    return in_child(doomed) == -signal.SIGKILL


def outcome(run: Run) -> dict[str, bytes]:
    """Return all that must not depend on how often the run was killed."""
    adapter = sorted(path for path in run.adapter.rglob("*") if path.is_file())
    files = [*adapter, *(run.path / name for name in WHOLE)]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}


def _skip_where_it_does_not_fit(name: str) -> None:
    promised = registry.find("methods", name).PROMISES
    why = promised.misfit("tiny") or promised.not_problems.get("classes")
    if why:
        pytest.skip(f"{name} does not fit the tiny backbone with classes: {why}")


@pytest.mark.parametrize("name", registry.names("methods"))
def test_killed_and_resumed_equals_never_killed(name: str, tmp_path: Path) -> None:
    """At three points: before the first checkpoint with steps in it, after the best, before the end."""
    _skip_where_it_does_not_fit(name)
    fields = rig.config(name).model_dump(mode="json")
    file = run_file(tmp_path, {"method": {**fields, "name": name}})
    whole = tmp_path / "whole"
    session.run(file, whole, options=OPTIONS)  # here, so that no child has to import anything
    path = tmp_path / "killed"
    assert killed_after(2, lambda: session.run(file, path, options=OPTIONS))
    for step in (5, 11):
        assert killed_after(step, lambda: session.resume(path, OPTIONS))
    assert in_child(lambda: session.resume(path, OPTIONS)) == 0
    assert outcome(Run(path)) == outcome(Run(whole))
    result = Run(path).read_result()
    assert result["exact"], result["not_exact"]


@pytest.mark.parametrize("name", registry.names("methods"))
def test_a_kept_step_opens_as_the_run_evaluated_it(name: str, tmp_path: Path) -> None:
    """The validation scores that metrics.jsonl has of the step, to the last bit."""
    _skip_where_it_does_not_fit(name)
    fields = rig.config(name).model_dump(mode="json")
    changes = {
        "method": {**fields, "name": name},
        "training": {"keep_checkpoints": 99, "save_every": 4},
    }
    run = session.run(run_file(tmp_path, changes), options=OPTIONS)
    recorded = {line["step"]: line for line in run.read_metrics() if "validation/loss" in line}
    for step in (4, 8, 12):
        rows, scores = inference.load(run.path, "cpu", step).evaluate("validation")
        found = {f"validation/{metric}": score.value for metric, score in scores.items()}
        found |= {"step": step, "validation/loss": evaluation.mean_loss(rows)}
        assert found == recorded[step]
