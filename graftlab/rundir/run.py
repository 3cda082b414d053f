"""A run on disk: the only thing that training, evaluation and comparison have in common."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab.errors import NEW, OUT, CheckpointError, ConfigError, DiskError, ModelError, Words
from graftlab.errors.names import near_file
from graftlab.rundir import files, manifest
from graftlab.rundir.holder import Holder, holder, signs_of_life
from graftlab.rundir.lines import read_lines
from graftlab.rundir.records import Result

BESIDE: Words = ("Start another beside it with ", NEW, ", or elsewhere with ", OUT, ".")
"""What to do where a run's directory is taken."""
CONFIG = "config.yaml"
BEFORE_CONFIG = {"lock", "predictions"}


@dataclass(frozen=True)
class Run:
    """One directory, written in this order:

    config.yaml        the resolved run file; `graftlab resume` needs nothing else
    environment.json   packages, commits, device, threads, data and model fingerprints, resumes
    model.txt          the adapted model's structure
    metrics.jsonl      one line per logged step: the same bytes for the same run
    timing.jsonl       wall-clock figures
    gradients.jsonl    gradients of what trains, where the run file's `analysis:` has asked for them
    conflicts.jsonl    cosines of a mixture's tasks' gradients, likewise
    run.log            what was said
    checkpoints/       see `graftlab.training.checkpoint`
    selection/         why this layer of a large model, where the method has asked for `layer: auto`
    adapter/           what users load: PEFT format where the method has one
    predictions/       one JSONL a split
    analysis/          what `graftlab analyse` has found, where it was asked
    evaluation/        what `graftlab evaluate --controls` or `--forgetting`, or a study, has found besides
    manifest.json      hashes of all that is left to be read, result.json's too: what has changed is refused
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

    def recorded(self, table: str) -> Path:
        """Return where a table lies that `analysis:` writes while the run trains."""
        return self.path / f"{table}.jsonl"

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

    def last_predictions(self, split: str) -> Path:
        """Return where those of the last step are, where the best checkpoint's count."""
        return self.path / "predictions" / "last" / f"{split}.jsonl"

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
            self.path.is_dir()
            and all(
                path.name in BEFORE_CONFIG or files.is_partial(path.name, CONFIG)
                for path in self.path.iterdir()
            )
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
    def lock(self, shared: bool = False) -> Iterator[None]:
        """Hold the run for this process; the lock goes with the process, however it ends.

        A shared one keeps out only those that want it for themselves. Where locks do not reach other
        machines, the time of its file says that this process lives.

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
            free = True
            try:
                # not flock: worker processes would inherit it, and hold it when this one is killed
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.lockf(file, kind | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                free = (
                    False  # raised below: behind the system's error it would be one of its limits
                )
            if not free:
                raise ConfigError(
                    f"{self.path} is in use by {self.held_by()}.",
                    ("Wait for it or stop it; or give this run another directory with ", OUT, "."),
                    kind="in_use",
                    given=str(self.path),
                )
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            with signs_of_life(file.fileno()):
                yield

    def held_by(self) -> str | None:
        """Return which process works on the run, if one does."""
        held = self.holder()
        return str(held) if held else None

    def holder(self) -> Holder | None:
        """Return the process that works on the run, if one does."""
        return holder(self.path / "lock")

    def check(self, *names: str) -> None:
        """Refuse files of a finished run, all unless named, that are not as it has left them.

        Raises:
            CheckpointError: with a problem for each of them.
        """
        if self.finished:
            manifest.check(self.path, names)

    def check_if_listed(self, path: Path) -> None:
        """Refuse a file of the run that may be there, if it is one that was left and has changed.

        Raises:
            CheckpointError: as `check`.
        """
        name = path.relative_to(self.path).as_posix()
        known = manifest.read(self.path) if self.finished else None
        if known is not None and (known.wrong or name in known.sums):
            self.check(name)

    def cover(self, path: Path) -> None:
        """Take a file that is written later into the manifest of a finished run."""
        if self.finished:
            with files.alone(self.path / "lock"):
                manifest.add(self.path, path.relative_to(self.path).as_posix())

    def check_adapter(self) -> bool:
        """Refuse an adapter that is not as it was written; return whether there is a manifest to tell.

        Raises:
            ModelError: a file of it has changed.
            CheckpointError: all of it is another run's.
        """
        folder = self.adapter_folder
        if folder == self.adapter and (folder / manifest.NAME).is_file():
            self.check(f"{folder.name}/{manifest.NAME}")
        elif folder == self.adapter and self.finished and manifest.read(self.path) is not None:
            raise ModelError([manifest.fault(folder / manifest.NAME, "missing")])
        return manifest.check(folder, error=ModelError)

    def leave(self, result: Result) -> None:
        """Finish the run: its manifest is written, and then the result.

        A run that is killed in between has not finished, and writes both anew.
        """
        text = files.dump_json(result)
        to_come = {self.result.name: manifest.hash_of(text.encode())}
        beside = {"lock", self.log.name, self.result.name, manifest.NAME}
        own = [
            path.name for path in self.path.iterdir() if path.is_file() and path.name not in beside
        ]
        within = (self.path / "predictions", self.selection)
        own += [f"{folder.name}/{name}" for folder in within for name in manifest.inside(folder)]
        manifest.write(self.path, [*own, f"{self.adapter.name}/{manifest.NAME}"], to_come)
        files.write_text(self.result, text)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl. `Raises:` CheckpointError: it is damaged."""
        self.check(self.metrics.name)
        return read_lines(self.metrics)

    def read_result(self) -> Result:
        """Return what a finished run has come to. `Raises:` CheckpointError: it is damaged."""
        result: Result = self._read(self.result)
        return result

    def read_environment(self) -> dict[str, Any]:
        """Return what the run was made with. `Raises:` CheckpointError: it is damaged."""
        environment: dict[str, Any] = self._read(self.environment)
        if not all(isinstance(environment.get(key), dict) for key in ("data", "backbone")):
            raise CheckpointError(manifest.fault(self.environment, "unreadable"))
        return environment

    def _read(self, path: Path) -> Any:
        """Return a JSON file that holds an object, which is read once. `Raises:` CheckpointError."""
        try:
            content = path.read_bytes()
            if self.finished:
                manifest.check_content(self.path, path.name, content)
            found = json.loads(content)
        except FileNotFoundError:
            raise CheckpointError(manifest.fault(path, "missing")) from None
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(manifest.fault(path, "unreadable")) from error
        if not isinstance(found, dict):
            raise CheckpointError(manifest.fault(path, "unreadable"))
        return found


def find(path: Path) -> Run:
    """Return the run at `path`, which has an adapter.

    Raises:
        ConfigError: it is no run, or has none yet.
    """
    run = Run(path)
    if not run.started:
        inside = (path.parent / "config.yaml").is_file()
        hint = f" Did you mean {path.parent}?" if inside else near_file(path)
        raise ConfigError(
            f"{path} is no run directory: it has no config.yaml.{hint}", kind="no_run"
        )
    if not run.environment.is_file() or not (run.adapter.is_dir() or run.finished):
        raise ConfigError(
            f"{path} has no adapter yet. Finish it with `graftlab resume {path}`.",
            kind="not_finished",
        )
    return run
