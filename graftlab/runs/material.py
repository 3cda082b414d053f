"""What a run works on: its rows are read, its backbone is loaded, and both become a task. Here alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graftlab.config import placed
from graftlab.contracts import Backbone, Data, Note, Problem, Task, read_notes
from graftlab.data import foreign_code, kept_arrays
from graftlab.data.section import DataSection
from graftlab.errors import DataError
from graftlab.rundir.run import Run
from graftlab.runfile import RunFile
from graftlab.runs import fit
from graftlab.seeds import mix
from graftlab.training import allocation
from graftlab.weights import packages


@dataclass(frozen=True)
class Material:
    """What a run has before its method is attached."""

    data: Data
    backbone: Backbone
    task: Task

    @property
    def record(self) -> dict[str, Any]:
        """What environment.json says of the data; an adapter outlives them, and needs their labels."""
        bound = getattr(self.task, "record", {})
        notes = [*self.data.record.get("notes", ()), *bound.get("notes", ())]
        return {**self.data.problem.as_json(), **self.data.record, **bound, "notes": notes}


def _go_on() -> None:
    """Stop nothing."""


def load(file: RunFile, *, meta: bool = False, check: Callable[[], None] = _go_on) -> Material:
    """Return a run's material; with `meta` its backbone has no weights. `check` may stop it halfway.

    Its tokens are kept under `paths.cache`, for the runs that want the same.

    Raises:
        ConfigError, DataError, ModelError, Refused
    """
    with placed(file.document):
        data = read(file)
        if not meta:  # what is only looked at need not be fit to train
            fit.check(file, data)
        check()
        model = backbone(file, data.problem, meta=meta)
        with kept_arrays.kept_in(file.paths.cache):
            return Material(data, model, bind(file, data, model))


def check_code(file: RunFile) -> None:
    """Refuse a run whose file would have code of others run, where that is not allowed.

    Raises:
        ConfigError, Refused: as `foreign_code.check`.
    """
    for part in (file.task, *file.task.parts.values()):
        foreign_code.check(part.config)


def read(file: RunFile) -> Data:
    """Return a run's rows.

    Raises:
        DataError: they are not there, or not what the run file says.
    """
    data: Data = file.task.module.read(file.task.config, file.paths, file.seed)
    return data


def examine(file: RunFile) -> list[Note]:
    """Return what is to be known of a run's rows where they are local files; nothing where they are not.

    Raises:
        ConfigError: what the file asks for does not fit them.
        DataError: they cannot be used.
    """
    sections = [part.config for part in (file.task.parts or {"": file.task}).values()]
    if not all(isinstance(s, DataSection) and (s.files or s.data_dir) for s in sections):
        return []
    data = read(file)
    fit.check(file, data)
    return read_notes(data.record.get("notes", ()))


def read_again(file: RunFile, run: Run) -> Data:
    """Return the rows that a run was trained on.

    Raises:
        DataError: they are gone, or have changed since.
    """
    if wrong := file.task.module.check(file.task.config):
        raise DataError([fault.within("task") for fault in wrong])
    data = read(file)
    before = run.read_environment()["data"].get("fingerprint") or {}
    now = data.record.get("fingerprint") or {}
    if changed := [split for split in {**before, **now} if before.get(split) != now.get(split)]:
        raise DataError(
            f"the task's data have changed since {run.path} was trained: {', '.join(changed)} of "
            f"{', '.join(dict.fromkeys(_sources(data)))}.",
            ("Put them back.",),
            kind="changed",
            given=changed,
        )
    return data


def _sources(data: Data) -> list[str]:
    """Return where rows are from: files, or data sets with their splits."""
    records = [data.record, *data.record.get("tasks", {}).values()]
    return [place for record in records for place in (record.get("source") or {}).values()]


def backbone(file: RunFile, problem: Problem, *, meta: bool = False) -> Backbone:
    """Return a run's backbone with a head for the problem; with `meta` without its weights.

    Raises:
        ConfigError, ModelError, Refused
    """
    seed = mix(file.seed, "backbone")
    with packages.kept_in(file.paths.cache), allocation.uncollected():
        loaded: Backbone = file.backbone.module.load(file.backbone.config, problem, seed, meta)
    return loaded


def bind(file: RunFile, data: Data, backbone: Backbone, section: Any = None) -> Task:
    """Return rows as a run's task, with the run's own section unless another is given.

    Raises:
        ConfigError, DataError: they do not fit the backbone.
    """
    seed = mix(file.seed, "task")
    task: Task = file.task.module.bind(data, backbone, section or file.task.config, seed)
    return task
