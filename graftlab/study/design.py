"""A study file as the runs that it asks for, every one of them checked before the first begins."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from graftlab import config, runfile
from graftlab.config import Document, Parsed, Problems, Section, lay_over
from graftlab.config.parser import Location
from graftlab.errors import ConfigError, Fault, GraftlabError, Place, unknown
from graftlab.runfile import Root, RunFile

NAMED_BY = {"method": "name", "task": "name", "backbone": "model"}
"""What an entry that is one word stands for."""
STUDYS_OWN = ("extends", "name", "paths", "seed", "tracking")
"""Keys of a run file that cannot vary: the study gives them, or they are not about what is computed."""
LONGEST_NAME = 120  # of a run's folder: a few may stand below each other in a path


class Choose(Section):
    """How one setting of each method is chosen out of those that `vary` gives."""

    by: Literal["validation"] = "validation"
    """The split whose metric chooses; what is chosen is then reported on test."""
    seeds: Literal["all", "first"] = "all"
    """Choose by the mean over all seeds; or by the first alone, and run only what is chosen at the others."""


class Study(Section):
    """The keys of a study file, beside `extends`."""

    name: str | None = None
    """Names the study and its directory; the file's own name unless given."""
    base: str | dict[str, Any]
    """What all runs share: a run file, a recipe's name, or a run file's keys."""
    methods: tuple[str | dict[str, Any], ...] = ()
    """Names, or sections laid over the base's method; an entry with the key `method` is a piece of a run
    file. Left out: the base's own. The same for tasks and backbones."""
    tasks: tuple[str | dict[str, Any], ...] = ()
    """Names, or sections laid over the base's task."""
    backbones: tuple[str | dict[str, Any], ...] = ()
    """Models, or sections laid over the base's backbone."""
    seeds: tuple[int, ...] = ()
    """Each combination runs once with each; left out: the base's own."""
    vary: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """A run file's key, such as `training.learning_rate`, and its values; all combinations run."""
    choose: Choose | None = None
    """Report each method at one setting of `vary` only, chosen on validation."""


class Cell(NamedTuple):
    """What is compared: all that a run is, but for its seed."""

    task: str
    backbone: str
    method: str
    setting: tuple[tuple[str, str], ...]
    """Keys of `vary` with this cell's values, as they are shown."""


@dataclass(frozen=True)
class Planned:
    """A run that the study asks for."""

    name: str
    cell: Cell
    seed: int
    document: Document
    file: RunFile


@dataclass(frozen=True)
class Plan:
    """A study that can be carried out."""

    name: str
    path: Path
    study: Study
    seeds: tuple[int, ...]
    runs: tuple[Planned, ...]
    allow_code: bool = False
    """Whether functions of other packages that its files name may make rows."""


class _Entry(NamedTuple):
    """One item of a list, as what it lays over the base."""

    label: str
    laid: Parsed


def read(path: str | Path, overrides: Sequence[str] = (), allow_code: bool = False) -> Plan:
    """Return the plan of a study file, or of a shipped one by its name.

    `overrides` are `key.key=value`; they win over the file. With `allow_code` functions of other packages
    that it names may make rows (`task.source`).

    Raises:
        ConfigError: something in it is wrong, in any combination; all of it is said at once.
        DataError, ModelError: only a task's files, or only a model's, are wrong.
    """
    document, problems = _read(path, overrides), Problems()
    if "base" not in document.values and {"backbone", "task", "method"} <= document.values.keys():
        raise ConfigError(
            "this is one run, not a study (base:, methods:, ...).",
            (f"Use graftlab run {document.path}; or name it as the base of a study.",),
            place=document.place("backbone"),
            kind="run",
        )
    study = config.build(Study, document.values, document, (), problems)
    problems.amend(0, _of_runs)
    if study is None:
        problems.raise_if_any()
    assert study is not None
    _check(study, document, problems)
    problems.raise_if_any()
    base = based_on(study.base, document)
    lists = [_entries(document, key, base) for key in ("task", "backbone", "method")]
    seeds = study.seeds or (base.values.get("seed", 0),)
    runs: list[Planned] = []
    for parts in itertools.product(*lists, _settings(study, document)):
        task, backbone, method, setting = parts
        shown = _shown_setting(setting.laid.values)
        cell = Cell(task.label, backbone.label, method.label, shown)
        for seed in seeds:
            name = _name(cell, seed, lists, {run.name for run in runs})
            own = Parsed({"seed": seed, "name": name}, {})
            laid = base
            for entry in (*parts, _Entry("", own)):
                laid = lay_over(laid, entry.laid)
            run = Document(document.path, laid.values, laid.places)
            if (file := _resolve(run, problems)) is not None:
                runs.append(Planned(name, cell, seed, run, file))
    problems.raise_if_any()
    name = study.name or document.path.stem
    return Plan(name, document.path, study, seeds, tuple(runs), allow_code)


def _read(path: str | Path, overrides: Sequence[str]) -> Document:
    """Return a study file with its overrides; those below a base that is a file are set over that file."""
    whole = [override for override in overrides if not override.startswith("base.")]
    document = config.read(path, whole)
    base, within = document.values.get("base"), [o for o in overrides if o not in whole]
    if not within:
        return document
    if not isinstance(base, str) and not (isinstance(base, dict) and "extends" in base):
        return config.read(path, overrides)
    below = based_on(base, document)
    set_over = config.given({"base": below.values}, overrides=within)
    places = {("base", *at): place for at, place in below.places.items()}
    return Document(
        document.path,
        {**document.values, **set_over.values},
        {**document.places, **places, **set_over.places},
    )


def _of_runs(problem: Fault) -> Fault:
    """Return a problem with where a key of run files belongs in a study."""
    if problem.kind != "unknown" or problem.place.key[1:] or problem.given not in Root.model_fields:
        return problem
    remedy = (f"For all runs: base.{problem.given}.",)
    return replace(problem, remedies=(*problem.remedies, remedy))


def _check(study: Study, document: Document, problems: Problems) -> None:
    known = [key for key in Root.model_fields if key not in STUDYS_OWN]
    for key, values in study.vary.items():
        place = document.place("vary", key)
        section = key.partition(".")[0]
        if section not in known:
            problems.say(place, f"vary: {unknown('section', section, known)} {_whole_key(key)}")
        if not values or len({*map(repr, values)}) < len(values):
            problems.say(place, f"vary.{key}: give one value or more, each once.")
    if len({*study.seeds}) < len(study.seeds) or any(seed < 0 for seed in study.seeds):
        problems.say(document.place("seeds"), "seeds: each once, none below 0.")
    if study.choose and not study.vary:
        problems.say(
            document.place("choose"), "choose: there is nothing to choose from; give vary."
        )


def _whole_key(key: str) -> str:
    """Return a hint for a key whose section was left out."""
    from graftlab.training.config import Config

    hint = f"Write training.{key}." if key in Config.model_fields else ""
    return hint or "A whole key is wanted, as in training.learning_rate."


def based_on(base: str | dict[str, Any], document: Document) -> Parsed:
    """Return the base's values and places; a file is looked for beside the study file first."""
    if isinstance(base, str):
        beside = document.path.parent / config.expand(Path(base))
        try:
            found = config.read(beside if beside.is_file() else base)
        except ConfigError as error:
            raise error.at(document.place("base")) from None
        return Parsed(found.values, dict(found.places))
    own = _moved(document, ("base",), ())
    values = {key: value for key, value in base.items() if key != "extends"}
    return (
        lay_over(based_on(str(base["extends"]), document), Parsed(values, own))
        if "extends" in base
        else Parsed(values, own)
    )


def _moved(document: Document, above: Location, below: Location) -> dict[Location, Place]:
    """Return the places of what stands below `above`, as if it stood below `below`."""
    return {
        (*below, *at[len(above) :]): place
        for at, place in document.places.items()
        if at[: len(above)] == above and (below or len(at) > len(above))
    }


def _entries(document: Document, key: str, base: Parsed) -> list[_Entry]:
    """Return the items of a list; the base's own section where there is no list.

    Raises:
        ConfigError: an item stands twice.
    """
    items: Sequence[Any] = document.values.get(f"{key}s") or ()
    laid = []
    for index, item in enumerate(items):
        at = (f"{key}s", index)
        if isinstance(item, str):
            where = document.place(*at)
            places: dict[Location, Place] = {(key,): where, (key, NAMED_BY[key]): where}
            laid.append(Parsed({key: {NAMED_BY[key]: item}}, places))
        elif isinstance(item.get(key), dict):
            laid.append(Parsed(item, _moved(document, at, ())))
        else:
            laid.append(Parsed({key: item}, _moved(document, at, (key,))))
    laid = laid or [Parsed({key: base.values.get(key)}, {})]
    labels = _labels([entry.values for entry in laid], key, base)
    for index, label in enumerate(labels):
        if label in labels[:index]:
            place = document.place(f"{key}s", index)
            raise ConfigError(f"{label!r} stands twice.", place=place, kind="twice", given=label)
    return [_Entry(label, entry) for label, entry in zip(labels, laid, strict=True)]


def _labels(entries: Sequence[Mapping[str, Any]], key: str, base: Parsed) -> list[str]:
    """Return a name for each entry; where two share one, with the values in which they differ."""

    def name(entry: Mapping[str, Any]) -> str:
        below = base.values.get(key)
        given = {**(below if isinstance(below, dict) else {}), **(entry[key] or {})}
        said = str(given.get("name") or given.get("model") or given.get("kind") or key)
        return Path(said).name if Path(said).is_absolute() else said

    names = [name(entry) for entry in entries]
    flat = [dict(_flatten(entry)) for entry in entries]
    labels = []
    for own, mine in zip(flat, names, strict=True):
        same = [other for other, its in zip(flat, names, strict=True) if its == mine]
        differ = {at: v for at, v in own.items() if any(other.get(at) != v for other in same)}
        said = [f"{at.removeprefix(f'{key}.')}={_shown(value)}" for at, value in differ.items()]
        labels.append(" ".join([mine, *said]))
    return labels


def _flatten(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _settings(study: Study, document: Document) -> Iterator[_Entry]:
    """Yield what each combination of `vary` lays over the base; one that is empty where nothing varies."""
    for values in itertools.product(*study.vary.values()):
        laid = Parsed({}, {})
        for dotted, value in zip(study.vary, values, strict=True):
            keys = tuple(dotted.split("."))
            place = document.place("vary", dotted)
            for key in reversed(keys):
                value = {key: value}
            places: dict[Location, Place] = {keys[:n]: place for n in range(1, len(keys) + 1)}
            laid = Parsed(config.merge(laid.values, value), {**laid.places, **places})
        yield _Entry("", laid)


def _shown_setting(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, _shown(value)) for key, value in _flatten(values))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _name(cell: Cell, seed: int, lists: Iterable[Sequence[_Entry]], taken: set[str]) -> str:
    """Return a folder's name that says what the run is, with what all runs share left out."""
    several = [label for label, items in zip(cell[:3], lists, strict=True) if len(items) > 1]
    setting = [f"{key.rpartition('.')[2]}={value}" for key, value in cell.setting]
    words = "-".join([*(several or [cell.method]), *setting])
    plain = re.sub(r"[^\w.=+-]+", "_", words).strip("._")[:LONGEST_NAME]
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    names = (f"{plain}{number}-seed{seed}" for number in numbers)
    return next(name for name in names if name not in taken)


def _resolve(document: Document, problems: Problems) -> RunFile | None:
    """Return a run, or None and its problems: many combinations have the same, and each is said once."""
    try:
        return runfile.resolve(document)
    except GraftlabError as error:
        problems.include(error)
        return None
