"""A run on disk: the only thing that training, evaluation and comparison have in common."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from graftlab.errors import NEW, OUT, ConfigError, DiskError, Words
from graftlab.rundir import files
from graftlab.rundir.records import Result

BESIDE: Words = ("Start another beside it with ", NEW, ", or elsewhere with ", OUT, ".")
"""What to do where a run's directory is taken."""
BEFORE_CONFIG = {"lock", "predictions", "config.yaml" + files.PARTIAL}


@dataclass(frozen=True)
class Run:
    """One directory, written in this order:

    config.yaml        the resolved run file; `graftlab resume` needs nothing else
    environment.json   packages, commits, device, threads, data and model fingerprints, resumes
    model.txt          the adapted model's structure
    metrics.jsonl      one line per logged step: the same bytes for the same run
    timing.jsonl       wall-clock figures
    run.log            what was said
    checkpoints/       see `graftlab.training.checkpoint`
    selection/         why this layer of a large model, where the method has asked for `layer: auto`
    adapter/           what users load: PEFT format where the method has one
    predictions/       one JSONL a split
    analysis/          what `graftlab analyse` has found, where it was asked
    result.json        the scores, written last: a run without it did not finish
    """

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        return self.path / "timing.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def model(self) -> Path:
        return self.path / "model.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def selection(self) -> Path:
        return self.path / "selection"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def adapter_folder(self) -> Path:
        """Where the adapter lies: `adapter`, or all in one folder where `graftlab push` has put it there."""
        return self.adapter if self.adapter.is_dir() else self.path

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.jsonl"

    @property
    def started(self) -> bool:
        return self.config.is_file()

    @property
    def finished(self) -> bool:
        return self.result.is_file()

    @property
    def empty(self) -> bool:
        """Nothing is there, but for what a run that was killed before its config.yaml has left."""
        return not self.path.exists() or (
            self.path.is_dir() and {path.name for path in self.path.iterdir()} <= BEFORE_CONFIG
        )

    def begin(self, config: str) -> None:
        """Write the resolved run file into the directory, which is locked.

        Raises:
            ConfigError: another process has begun a run there in the meantime.
        """
        if self.started:
            said = f"{self.path} was taken by another run just now."
            raise ConfigError(said, BESIDE, kind="taken", given=str(self.path))
        (self.path / "predictions").mkdir(exist_ok=True)
        files.write_text(self.config, config)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the lock goes with the process, however it ends.

        Raises:
            ConfigError: another process holds it.
            DiskError: the directory cannot be written.
        """
        import fcntl

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise DiskError(
                f"cannot write the run directory {self.path}: {error}.",
                ("Choose another with ", OUT, ", or set paths.runs."),
                kind="unwritable",
                given=str(self.path),
            ) from error
        with file:
            try:
                # not flock: worker processes would inherit it, and hold it when this one is killed
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise ConfigError(
                    f"{self.path} is in use by {self.held_by()}.",
                    ("Wait for it or stop it; or give this run another directory with ", OUT, "."),
                    kind="in_use",
                    given=str(self.path),
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

    def held_by(self) -> str | None:
        """Return which process works on the run, if one does."""
        import fcntl

        try:
            file = (self.path / "lock").open("r+", encoding="utf-8")
        except OSError:
            return None
        with file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return file.read().strip() or "another process"
            return None

    def read_metrics(self) -> list[dict[str, Any]]:
        return read_lines(self.metrics)

    def read_result(self) -> Result:
        result: Result = files.read_json(self.result)
        return result


def find(path: Path) -> Run:
    """Return the run at `path`, which has an adapter.

    Raises:
        ConfigError: it is no run, or has none yet.
    """
    run = Run(path)
    if not run.started:
        inside = (path.parent / "config.yaml").is_file()
        hint = f" Did you mean {path.parent}?" if inside else ""
        raise ConfigError(
            f"{path} is no run directory: it has no config.yaml.{hint}", kind="no_run"
        )
    if not run.environment.is_file() or not (run.adapter.is_dir() or run.finished):
        raise ConfigError(
            f"{path} has no adapter yet. Finish it with `graftlab resume {path}`.",
            kind="not_finished",
        )
    return run


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a JSONL file; a last line cut off by a crash is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


class Lines:
    """A JSONL file that grows, and can be cut back to where a checkpoint left it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: IO[bytes] = path.open("ab", buffering=0)
        whole = path.read_bytes().rfind(b"\n") + 1
        self.file.truncate(whole)  # a line that a crash has cut off would spoil the next one

    def append(self, values: Mapping[str, object]) -> None:
        """Add one line; floats keep their shortest exact form, what is not finite becomes null."""
        line = {k: None if _not_finite(v) else v for k, v in values.items()}
        rest = files.dump_json(line, indent=None).encode()
        while rest:  # a disk that is nearly full takes a part
            rest = rest[self.file.write(rest) :]

    def durable(self) -> int:
        """Bring all lines to the disk and return the file's length in bytes."""
        os.fsync(self.file.fileno())
        return self.file.tell()

    def cut(self, length: int) -> bool:
        """Forget what was written after a checkpoint; return whether all before it is there."""
        if self.file.seek(0, os.SEEK_END) < length:
            return False
        self.file.truncate(length)
        self.file.seek(length)
        return True

    def close(self) -> None:
        self.file.close()


class NoLines:
    """The lines of a process that writes none: the main one of its run does."""

    def append(self, values: Mapping[str, object]) -> None:
        """Add nothing."""

    def durable(self) -> int:
        return 0

    def cut(self, length: int) -> bool:
        return True


def _not_finite(value: object) -> bool:
    return isinstance(value, float) and (value != value or value in (float("inf"), -float("inf")))
