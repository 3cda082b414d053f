"""Every file of a run, damaged in five ways, under every command that reads it: seen, or harmless.

Which files a command reads is asked of the interpreter, which tells of each file that is opened. Seen is: the
command ends with an error that names the file, or says in a warning what has changed. Harmless is: it ends as
with the run undamaged, in the same bytes. Everything runs in this process, on a model of a few thousand
numbers; one damage is tried in a fresh process.

The quick part takes twenty seconds of a processor. The part that is marked slow takes about a minute more:
some forty damaged runs are gone on with, each to its adapter and its predictions.
"""

import contextlib
import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import finished_runs
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner
from written_runs import finish_writer

import graftlab
from graftlab import cli, config
from graftlab.errors import CheckpointError, Diverged, ModelError, Stopped
from graftlab.rundir import manifest
from graftlab.rundir.run import Run
from graftlab.training.step import Stepper


def flip(path: Path, other: Path) -> None:
    """Change a bit in the middle: of a letter or digit, if it is a text."""
    data = bytearray(path.read_bytes())
    places = [*range(len(data) // 2, len(data)), *range(len(data) // 2)]
    place = next((p for p in places if chr(data[p]).isalnum()), len(data) // 2)
    data[place] ^= 1
    path.write_bytes(data)


def truncate(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path, other: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def garbage(path: Path, other: Path) -> None:
    path.write_bytes(bytes(range(256)) * (1 + path.stat().st_size // 256))


def swap(path: Path, other: Path) -> None:
    """Exchange it with another file of the run."""
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


DAMAGE = (flip, truncate, zero, garbage, swap)
OPENED: list[str] | None = None


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if OPENED is not None and event == "open" and "r" in str(arguments[1] or ""):  # to be read
        OPENED.append(str(arguments[0]))


sys.addaudithook(_note)


@contextlib.contextmanager
def opened():
    """Collect which files are opened inside."""
    global OPENED
    found = OPENED = []
    try:
        yield found
    finally:
        OPENED = None


@pytest.fixture(autouse=True)
def warnings_are_shown():
    handler = cli.Warnings()
    logging.getLogger("graftlab").addHandler(handler)
    yield
    logging.getLogger("graftlab").removeHandler(handler)


def invoke(*arguments, text=None):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], input=text)


class Place:
    """A run, a pristine copy of it, and the commands that are tried on it."""

    def __init__(self, run: Path, commands: dict[str, list[object]]) -> None:
        self.run, self.commands = run, commands
        self.pristine, self.out = run.with_name("pristine"), run.with_name("out")
        shutil.copytree(run, self.pristine)

    def restore(self) -> None:
        for path in (self.run, self.out):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.pristine, self.run)

    def call(self, command):
        shutil.rmtree(self.out, ignore_errors=True)
        text = "hello\n" if command == "chat" else None
        return invoke(*self.commands[command], text=text)

    def read_by(self, command) -> tuple[object, set[str]]:
        """Return how the command ends on the run undamaged, and the files that it opens of it."""
        self.restore()
        with opened() as found:
            ended = self.call(command)
        inside = {p for p in found if p.startswith(f"{self.run}/")}
        return ended, {str(Path(p).relative_to(self.run)) for p in inside}


def cases(place: Place, command: str):
    """Yield each damage to each file that the command reads, with how the command ends then."""
    whole, read = place.read_by(command)
    names = sorted(
        str(p.relative_to(place.pristine)) for p in place.pristine.rglob("*") if p.is_file()
    )
    for name in (name for name in names if name in read):
        others = [other for other in names if other != name]
        other = others[names.index(name) % len(others)]
        older = name.startswith("checkpoints/")  # whose damages are told apart in tests/training
        for damage in DAMAGE[:1] if older else DAMAGE:
            place.restore()
            damage(place.run / name, place.run / other)
            hurt = {name, other} if damage is swap else {name}
            yield f"{damage.__name__} {name}", hurt, whole, place.call(command)


def is_clean(ended) -> bool:
    return ended.exception is None or isinstance(ended.exception, SystemExit)


TINY = {"kind": "tiny", "model": "tiny", "width": 16, "layers": 1, "max_length": 64}
LORA = {"name": "lora", "rank": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run = finished_runs.finish(folder, LORA, name="run", backbone=TINY).path
    begins, out = folder / "begins.yaml", run.with_name("out")
    values = config.read_yaml(run / "config.yaml")
    begins.write_text(config.dump({**values, "method": {**LORA, "start_from": str(run)}}))
    return Place(run, {
        "predict": ["predict", run, "--input", "a warm day"],
        "evaluate": ["evaluate", run],
        "merge": ["merge", run, "--out", out, "--rows", "2"],
        "export": ["export", run, "--out", out],
        "audit": ["export", run, "--audit"],
        "analyse": ["analyse", run, "--out", out, "--kind", "spectra", "--no-figures", "--steps", "4"],
        "push": ["push", run, "--repo", "me/critic", "--dry-run"],
        "show": ["show", run],
        "resume": ["resume", run],
        "check": ["check", begins],
    })  # fmt: skip


FINISHED = (
    "predict",
    "evaluate",
    "merge",
    "export",
    "audit",
    "analyse",
    "push",
    "show",
    "resume",
    "check",
)


def judged(place: Place, command: str, same) -> list[tuple[object, ...]]:
    """Return what is neither seen nor harmless; `same` says whether two ends are equal."""
    wrong, count = [], 0
    for case, hurt, whole, ended in cases(place, command):
        count += 1
        named = any(Path(name).name in ended.output for name in hurt)
        told = named and (ended.exit_code or "warning: " in ended.output)
        if not is_clean(ended) or not (told or same(whole, ended)):
            wrong.append((case, repr(ended.exception), ended.exit_code, ended.output[-300:]))
    assert count, "it reads no file of the run"
    return wrong


@pytest.mark.quick("predict")
@pytest.mark.parametrize("command", FINISHED)
def test_damage_to_a_finished_run_is_named_or_harmless(finished, command, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a push ends there, after it has read all
    wrong = judged(
        finished, command, lambda a, b: (a.exit_code, a.stdout) == (b.exit_code, b.stdout)
    )
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.slow
def test_damage_is_named_in_a_conversation(tmp_path):
    run = finish_writer(tmp_path, "chat", template="chat").path
    place = Place(run, {"chat": ["chat", run, "--max-new-tokens", "2"]})
    wrong = judged(place, "chat", lambda a, b: (a.exit_code, a.stdout) == (b.exit_code, b.stdout))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A run of four steps that was stopped after the third, with checkpoints 0, 2 and 3."""
    folder, real = tmp_path_factory.mktemp("unfinished"), Stepper.step

    def stopping(self, step, rate):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(self, step, rate)

    with pytest.MonkeyPatch.context() as during:
        during.setattr(Stepper, "step", stopping)
        with pytest.raises(Stopped):
            finished_runs.finish(
                folder, LORA, name="run", backbone=TINY,
                training={"max_steps": 4, "batch_size": 8, "save_every": 2, "logging_every": 1},
            )  # fmt: skip
    run = folder / "runs" / "run"
    return Place(run, {
        "resume": ["resume", run],
        "step": ["predict", run, "--step", "3", "--input", "a warm day"],
        "show": ["show", run],
    })  # fmt: skip


def left(run: Path) -> dict[str, bytes]:
    """Return the files that killed and resumed runs have in common with others, byte for byte."""
    names = [
        "metrics.jsonl",
        *(f"adapter/{n}" for n in ("adapter_config.json", "adapter_model.safetensors")),
    ]
    names += [f"predictions/{split}.jsonl" for split in ("test", "validation")]
    return {name: (run / name).read_bytes() for name in names if (run / name).is_file()}


@pytest.mark.slow  # each damage is followed by a step, an adapter and predictions
def test_a_run_with_a_damaged_file_is_gone_on_with_to_the_same_bytes_or_marked_or_refused(
    unfinished,
):
    whole, _ = unfinished.read_by("resume")
    assert whole.exit_code == 0, whole.output
    expected = left(unfinished.run)

    def same(_, ended) -> bool:
        if ended.exit_code:
            return False
        return not Run(unfinished.run).read_result()["exact"] or left(unfinished.run) == expected

    wrong = judged(unfinished, "resume", same)
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.quick("show")
@pytest.mark.parametrize("command", ["step", "show"])
def test_damage_to_an_unfinished_run_is_named_or_harmless(unfinished, command):
    wrong = judged(
        unfinished, command, lambda a, b: (a.exit_code, a.stdout) == (b.exit_code, b.stdout)
    )
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
def test_lines_that_have_changed_mark_the_run_and_leave_its_weights(unfinished, name):
    unfinished.read_by("resume")
    weights = left(unfinished.run)["adapter/adapter_model.safetensors"]
    unfinished.restore()
    flip(unfinished.run / name, unfinished.run)
    assert unfinished.call("resume").exit_code == 0
    result = Run(unfinished.run).read_result()
    assert [note["file"] for note in result["not_exact"]] == [name]
    assert not result["exact"]
    assert left(unfinished.run)["adapter/adapter_model.safetensors"] == weights


@pytest.mark.slow
def test_a_damaged_run_of_a_study_is_a_hole_with_its_cause(tmp_path, monkeypatch):
    finished_runs.make_data(tmp_path / "data")
    files = {s: str(tmp_path / "data" / f"{s}.csv") for s in finished_runs.SPLITS}
    study = tmp_path / "study.yaml"
    study.write_text(config.dump({
        "base": {
            "backbone": TINY, "task": {"kind": "classification", "files": files}, "method": {"name": "head"},
            "training": {"max_steps": 1, "batch_size": 8}, "paths": {"runs": str(tmp_path / "runs")},
        },
        "methods": [{"name": "head"}, LORA],
        "seeds": [0],
    }))  # fmt: skip
    arguments = ["compare", study, "--out", tmp_path / "out", "--json"]
    whole = json.loads(invoke(*arguments).stdout)
    assert not any(run["cause"] for run in whole["runs"])
    hurt = tmp_path / "out" / "runs" / whole["runs"][1]["run"]
    for name in ("result.json", "metrics.jsonl"):
        before = (hurt / name).read_bytes()
        garbage(hurt / name, hurt / "model.txt")
        ended = invoke(*arguments)
        found = json.loads(ended.stdout)
        (hole,) = (run for run in found["runs"] if run["cause"])
        assert (ended.exit_code, hole["run"]) == (10, hurt.name)
        assert name in hole["cause"]
        (hurt / name).write_bytes(before)


def poison(path: Path, value: float) -> str:
    """Put a number that is none into a tensor, and let the manifests know of the file; return its name."""
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = value
    save_file(tensors, path, metadata={"format": "pt"})
    manifest.write(path.parent, manifest.inside(path.parent))
    for above in (path.parent.parent,):
        manifest.add(above, f"{path.parent.name}/{manifest.NAME}")
    return name


@pytest.mark.quick("*-nan")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("command", ["predict", "evaluate", "merge", "export", "push"])
def test_a_number_that_is_none_is_refused_with_its_tensors_name(
    finished, command, value, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    finished.restore()
    name = poison(finished.run / "adapter" / "adapter_model.safetensors", value)
    ended = finished.call(command)
    assert (ended.exit_code, name in ended.output) == (ModelError.exit_code, True)


@pytest.mark.slow
def test_no_run_ends_with_a_number_that_is_none(tmp_path, monkeypatch):
    real = Stepper.step

    def poisoning(self, step, rate):
        done = real(self, step, rate)
        with torch.no_grad():
            next(p for p in self.learner.model.parameters() if p.requires_grad).view(-1)[0] = float(
                "nan"
            )
        return done

    monkeypatch.setattr(Stepper, "step", poisoning)
    with pytest.raises(Diverged):
        finished_runs.finish(tmp_path, LORA, name="run", backbone=TINY, training={"max_steps": 1})
    assert not Run(tmp_path / "runs" / "run").finished


def test_a_run_without_manifests_is_taken_and_that_is_said(finished):
    finished.restore()
    for folder in (finished.run, finished.run / "adapter"):
        (folder / manifest.NAME).unlink()
    ended = finished.call("predict")
    assert ended.exit_code == 0
    assert "warning: " in ended.output
    assert manifest.NAME in ended.output


def test_an_adapter_of_another_run_is_not_taken_for_this_ones(finished):
    finished.restore()
    adapter = finished.run / "adapter"
    path = adapter / "adapter_model.safetensors"
    save_file({n: 2 * t for n, t in load_file(path).items()}, path, metadata={"format": "pt"})
    manifest.write(adapter, manifest.inside(adapter))  # whole in itself
    with pytest.raises(CheckpointError) as caught:
        graftlab.load(finished.run)
    assert caught.value.problems[0].place.file == str(adapter / manifest.NAME)


@pytest.mark.slow
def test_damage_is_refused_by_a_process_of_its_own(finished):
    finished.restore()
    zero(finished.run / "adapter" / "adapter_model.safetensors", finished.run)
    command = [sys.executable, "-m", "graftlab", *map(str, finished.commands["predict"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (ModelError.exit_code, "")
    assert "adapter_model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
