"""What can be analysed, told apart by what lies there: runs, adapters, trainers' folders, models, lists."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftlab.contracts import About, Subject
from graftlab.errors import Argument, ConfigError, GraftlabError
from graftlab.explanation import finished_run, model_list
from graftlab.explanation.adapter_folder import AdapterFolder
from graftlab.explanation.finished_run import RunState
from graftlab.explanation.spool import Spool
from graftlab.explanation.stored import is_model
from graftlab.explanation.tuned_model import TunedModel
from graftlab.rundir.run import Run

ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Options:
    """What targets are opened with."""

    base: str | None = None
    """The model that adapters and tuned models began from, where they do not name it."""
    steps: tuple[int, ...] | None = None
    """Only these checkpoints; None for all that are kept."""
    matrices: tuple[str, ...] = ()
    """Names of modules, or patterns of weights' names: of a run nothing else is set aside; () for all."""


@dataclass(frozen=True)
class Model:
    """A target: one model at one or several moments, the earliest first."""

    name: str
    subjects: tuple[Subject, ...]
    run: Path | None = None
    """The run's directory, where it is one of this project's."""


def find(targets: Sequence[str], options: Options, spool: Spool) -> list[Model]:
    """Return the models that are named: by a run's directory, an adapter's, a trainer's with checkpoint-*/,
    `base:tuned`, or a YAML file that lists them.

    Raises:
        ConfigError: a target is none of these, or a step is not kept.
        ModelError: a model cannot be found, or is not whole.
    """
    found: list[Model] = []
    for target in targets:
        path = Path(target).expanduser()
        if path.suffix in (".yaml", ".yml") and path.is_file():
            found += _listed(path, options, spool)
        else:
            found.append(_one(target, Path(target).name or target, options, spool))
    return _told_apart(found, targets)


def _told_apart(models: list[Model], targets: Sequence[str]) -> list[Model]:
    names = [model.name for model in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"two targets are called {twice[0]}: {', '.join(targets)}. List them in a YAML file with a "
            f"name each: `name: {{path: ...}}`."
        )
    return models


def _listed(path: Path, options: Options, spool: Spool) -> list[Model]:
    """Return the models of a file, what is wrong with one at its place there."""
    found = []
    for name, entry, place in model_list.read(path):
        own = replace(options, base=entry.base or options.base)
        about = About(name, None, entry.method, None, entry.task_type)
        try:
            found.append(_one(str(entry.path), name, own, spool, about))
        except GraftlabError as error:
            raise error.at(place) from None
    return found


def _one(
    target: str, name: str, options: Options, spool: Spool, about: About | None = None
) -> Model:
    path, about = Path(target).expanduser(), about or About(name)
    if Run(path).started:
        return _of_run(path, about, options, spool)
    if checkpoints := _checkpoints(path):
        chosen = {s: p for s, p in checkpoints.items() if not options.steps or s in options.steps}
        _refuse_missing(options, checkpoints, target)
        states = [
            _state(place, options, about._replace(checkpoint=s)) for s, place in chosen.items()
        ]
        return Model(name, tuple(states))
    if (path / ADAPTER).is_file() or is_model(path):
        return Model(name, (_state(path, options, about),))
    for base, tuned in _pairs(target):
        if is_model(Path(tuned).expanduser()):
            shown = about._replace(model=about.model if about.model != name else Path(tuned).name)
            return Model(shown.model, (_state(Path(tuned).expanduser(), Options(base), shown),))
    raise ConfigError(
        f"{target} is nothing that can be analysed: neither a run's directory, nor a folder with "
        f"{ADAPTER} or checkpoint-*/, nor BASE:TUNED with two models, nor a YAML file that lists them."
    )


def _pairs(target: str) -> list[tuple[str, str]]:
    places = [place for place, letter in enumerate(target) if letter == ":"]
    return [(target[:place], target[place + 1 :]) for place in places]


def _state(path: Path, options: Options, about: About) -> Subject:
    path = path.expanduser()
    if (path / ADAPTER).is_file():
        return AdapterFolder(path, options.base, about)
    if not is_model(path):
        raise ConfigError(
            f"{path} holds neither an adapter nor a model in safetensors: it is not whole."
        )
    if options.base is None:
        raise ConfigError(
            f"{path} is a whole model: what training changed is known beside the one it began from.",
            ("Give that with ", Argument("base"), f", or as BASE:{path}."),
            kind="missing",
        )
    return TunedModel(str(path), options.base, about._replace(method=about.method or "full"))


def _checkpoints(path: Path) -> dict[int, Path]:
    """Return a trainer's checkpoints by their step, in the order of numbers."""
    found = {}
    for place in path.glob("checkpoint-*") if path.is_dir() else ():
        if (number := re.fullmatch(r"checkpoint-(\d+)", place.name)) and place.is_dir():
            found[int(number[1])] = place
    return dict(sorted(found.items()))


def _of_run(path: Path, about: About, options: Options, spool: Spool) -> Model:
    """Return a run: its kept steps, or what it has come to where none is kept."""
    kept = finished_run.steps(path)
    _refuse_missing(options, kept, str(path))
    steps: list[int | None] = [s for s in kept if s and (not options.steps or s in options.steps)]
    if not steps:
        if not Run(path).result.is_file():
            raise ConfigError(f"{path} has neither finished nor kept a checkpoint after step 0.")
        steps = [None]
    states = tuple(RunState(path, step, about, spool, options.matrices) for step in steps)
    return Model(about.model, states, path)


def _refuse_missing(options: Options, kept: Any, where: str) -> None:
    if missing := [step for step in options.steps or () if step not in kept]:
        raise ConfigError(
            f"{where} keeps no checkpoint of step {missing[0]}. Kept: {', '.join(map(str, kept)) or 'none'}."
        )
