"""A run file resolved: every section checked by the part that it names, all problems said at once.

Nothing heavy is imported here, so that a wrong file is refused in the time that it takes to read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import BaseModel

from graftlab.config import Document, Paths, Problems, Section, build, read
from graftlab.config import given as given_values
from graftlab.contracts import BackboneKind, HookKind, Method, TaskKind
from graftlab.errors import (
    Argument,
    CheckpointError,
    ConfigError,
    Place,
    unknown,
)
from graftlab.rundir.run import Run
from graftlab.runfile import chats, checks, parts
from graftlab.runfile.records import Part, Root, RunFile
from graftlab.weights import pretrained

if TYPE_CHECKING:
    from graftlab.training.config import Config as Training
    from graftlab.training.trackers import Config as Tracking

SectionT = TypeVar("SectionT", bound=Section)

SEARCH, STUDY = "search", "study"


def resolve_task(task: str, overrides: Sequence[str] = ()) -> Part[TaskKind]:
    """Return the task of that name in the catalogue, or of the run file or recipe of that name.

    Raises:
        ConfigError: there is none, or something in it is wrong.
    """
    problems, argument = Problems(), Argument("task", task)
    if task in parts.catalogue(task):
        document = given_values({"task": {"name": task}}, Place(argument=argument), overrides)
    else:
        try:
            document = read(task, overrides)
        except ConfigError as error:
            hint = unknown("task", task, (e["name"] for e in parts.catalogue().values()))
            said = f"{hint} And as a run file: {error}"
            raise ConfigError(said, place=Place(argument=argument), kind="unknown") from None
    found = parts.task(document, problems)
    problems.raise_if_any()
    if found is None:
        raise ConfigError(
            "it has no section `task`.", place=Place(argument=argument), kind="missing"
        )
    return found


def several(given: Mapping[str, object]) -> str | None:
    """Return what a file of more than one run is, by its keys; None of a run's own."""
    if "base" not in given or {"backbone", "task", "method"} & given.keys():
        return None
    return SEARCH if "space" in given else STUDY


def resolve(document: Document, finished: bool = False) -> RunFile:
    """Return the run that a document describes; of a `finished` one the files it began from may be gone, and
    hooks that are not installed here are left out: they have done their work.

    Raises:
        ConfigError: something in it is wrong; all of it is said at once.
        DataError, ModelError: only the task's files, or only the model's, are wrong.
    """
    given = document.values
    if kind := several(given):
        command = "tune" if kind == SEARCH else "compare"
        raise ConfigError(
            f"this is a {kind} (base:, {'space' if command == 'tune' else 'methods'}:, ...), not one run.",
            (f"Use graftlab {command} {document.path}.",),
            place=document.place("base"),
            kind=kind,
        )
    problems = Problems()
    root = build(Root, given, document, (), problems)
    found = _sections(document, problems, finished)
    _check(found, document, problems, finished)
    problems.raise_if_any()
    assert root, "what makes it None is a problem"
    assert found.task and found.backbone and found.method  # noqa: PT018
    assert found.training and found.tracking  # noqa: PT018
    file = RunFile(
        name=root.name or document.path.stem,
        backbone=found.backbone,
        task=found.task,
        method=found.method,
        hooks=found.hooks,
        training=found.training,
        tracking=found.tracking,
        paths=root.paths or Paths(),
        seed=root.seed,
        deterministic=root.deterministic,
        resolved={},
        document=document,
        places=document.places,
        notes=(
            *checks.folder_for_a_name(document, found.backbone),
            *checks.notes(document, found.training, found.tracking),
        ),
    )
    return replace(file, resolved=_resolved(file))


class _Sections(NamedTuple):
    """What a document's sections are; None for one that is wrong, which the problems then say."""

    task: Part[TaskKind] | None
    backbone: Part[BackboneKind] | None
    method: Part[Method] | None
    hooks: tuple[Part[HookKind], ...]
    training: "Training | None"
    tracking: "Tracking | None"


def _sections(document: Document, problems: Problems, finished: bool) -> _Sections:
    from graftlab.training import config as training
    from graftlab.training import trackers

    return _Sections(
        task=parts.task(document, problems),
        backbone=parts.backbone(document, problems),
        method=parts.method(document, problems),
        hooks=parts.hooks(document, problems, finished),
        training=_section(training.Config, "training", document, problems),
        tracking=_section(trackers.Config, "tracking", document, problems),
    )


def _check(found: _Sections, document: Document, problems: Problems, finished: bool) -> None:
    """Add what is wrong within sections and between them."""
    from graftlab.training import config as training
    from graftlab.training import trackers

    task, backbone, method, loop = found.task, found.backbone, found.method, found.training
    if backbone:
        checks.add(problems, document, "backbone", backbone.module.check(backbone.config))
    if loop is not None:
        checks.add(problems, document, "training", training.check(loop))
    if found.tracking is not None:
        checks.add(problems, document, "tracking", trackers.check(found.tracking))
    if task and backbone and loop is not None:
        checks.check_task(task, backbone, loop, document, problems)
        if not finished:
            checks.check_data(task, document, problems)
    if method and backbone and loop is not None and not finished:
        checks.check_method(method, backbone, loop, document, problems)
    for hook in found.hooks if task else ():
        if hook.module.check is not None:
            section = "hooks" if hook.name not in document.values else hook.name
            faults = hook.module.check(hook.config, bool(task and task.parts))
            checks.add(problems, document, section, faults)
    if task and backbone and not finished:
        chats.check(task, backbone, document, problems)
    if task and method:
        checks.check_packing(task, method, document, problems)
        checks.check_vectors(task, method, document, problems)


def _resolved(file: RunFile) -> dict[str, object]:
    """Return every field with its value. Hooks and a limit of time stand there where there are some:
    config.yaml of a run without is what it was before there were any, so that old runs are gone on with."""
    training = _plain(file.training)
    if not file.training.max_seconds:
        del training["max_seconds"]
    hooks = [{"name": part.name, **_plain(part.config)} for part in file.hooks]
    return {
        "name": file.name,
        "backbone": {"kind": file.backbone.name, **_plain(file.backbone.config)},
        "task": _task(file.task),
        "method": {"name": file.method.name, **_plain(file.method.config)},
        **({"hooks": hooks} if hooks else {}),
        "training": training,
        "tracking": _plain(file.tracking),
        "paths": _plain(file.paths),
        "seed": file.seed,
        "deterministic": file.deterministic,
    }


def of_run(run: Run) -> RunFile:
    """Return the run file that a run was made with; the data it began from may be gone.

    A chat template is read from beside it, if one lies there: the run may stand on another machine.

    Raises:
        ConfigError, ModelError: it can no longer be resolved.
    """
    file = began_with(run, finished=True)
    section = file.task.config
    template = getattr(section, "chat_template_file", None)
    if template is None or not (run.path / template.name).is_file():
        return file
    run.check(template.name)
    section = section.model_copy(update={"chat_template_file": run.path / template.name})
    return replace(file, task=replace(file.task, config=section))


def began_with(run: Run, finished: bool = False) -> RunFile:
    """Return the run file that a run began with. An alias means the model that it named then.

    Raises:
        CheckpointError: config.yaml of a finished run has changed since.
        ConfigError, DataError, ModelError: as `resolve`.
    """
    run.check(run.config.name)
    document = replace(read(run.config), from_shell=True)
    file = resolve(document, finished)
    model, before = getattr(file.backbone.config, "model", None), _source(run)
    known = pretrained.aliases(str(model)).get(str(model), {}).get("id")
    if before is None or known in (None, before):
        return file
    document.values["backbone"]["model"] = before
    return replace(resolve(document, finished), resolved=file.resolved)


def _source(run: Run) -> str | None:
    """Return where a run's backbone came from, if it has come so far."""
    try:
        found: str | None = run.read_environment()["backbone"].get("source")
    except CheckpointError:
        return None  # said where the run is gone on with
    return found


def _section(
    config: type[SectionT], name: str, document: Document, problems: Problems
) -> SectionT | None:
    """Return a section that may be left out; None where it is no mapping (Root says so) or wrong."""
    values = document.values.get(name)
    if values is not None and not isinstance(values, dict):
        return None
    return build(config, values, document, (name,), problems)


def _task(part: Part[TaskKind]) -> dict[str, object]:
    """Return a task's section whole; of one made of several, theirs too."""
    own = {**_plain(part.config), "kind": part.name}
    parts = [{"as": name, **_task(other)} for name, other in part.parts.items()]
    return {**own, "tasks": parts} if parts else own


def _plain(value: object) -> Any:
    """Return a config as what YAML can hold, paths absolute: a run resumes from any directory."""
    if isinstance(value, BaseModel):
        return {key: _plain(getattr(value, key)) for key in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value
