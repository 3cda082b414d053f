"""A study file as the runs that it asks for, every one of them checked before the first begins."""

import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graftlab import config, runfile
from graftlab.config import Document, Parsed, Problems, lay_over
from graftlab.config.parser import Location
from graftlab.errors import ConfigError, Fault, GraftlabError, Place
from graftlab.runfile import Root, RunFile, on_validation
from graftlab.runs import forgetting
from graftlab.runs.forgetting import Asked
from graftlab.study import labels, variation
from graftlab.study.entries import Entry, entries, moved
from graftlab.study.labels import Cell
from graftlab.study.section import Study

SEEDS = 2**63  # as of a run file


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
    budget_place: Place = field(default_factory=Place)
    """Where `budget` stands."""
    base: Parsed = field(default_factory=lambda: Parsed({}, {}))
    """What the base says and where, as far as a file was read."""
    forgetting: Asked | None = None
    """What its runs are asked that they were not trained on."""
    spaces: Mapping[str, Parsed] = field(default_factory=dict)
    """Of a study that tunes: by method what its search file would say, and where that stands."""
    chosen_by: str | None = None
    """How settings were chosen before its runs, where they were."""

    def files_by_group(self) -> list[dict[str, RunFile]]:
        """Return the run files that are compared with each other, by what they are called: those of one task
        and backbone, at the first seed."""
        groups: dict[tuple[str, str], dict[str, RunFile]] = {}
        for run in self.runs:
            if run.seed == self.seeds[0]:
                own = groups.setdefault(run.cell[:2], {})
                setting = (f"{key}={value}" for key, value in run.cell.setting)
                own[" ".join([run.cell.method, *setting])] = run.file
        return list(groups.values())


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
    lists = [entries(document, key, base, problems) for key in ("task", "backbone", "method")]
    problems.raise_if_any()
    if study.choose and not any([study.vary, *(method.vary for method in lists[2])]):
        raise ConfigError(
            "choose: there is nothing to choose from; give vary.", place=document.place("choose")
        )
    seeds = study.seeds or (base.values.get("seed", 0),)
    runs: list[Planned] = []
    known: dict[str, str] = {}
    for parts in itertools.product(*lists):
        for setting in _settings(study, parts[2], document):
            laid = functools.reduce(lay_over, [*(entry.laid for entry in parts), setting], base)
            shown = labels.shown_setting(setting.values)
            task, backbone, method = (entry.label for entry in parts)
            cell = Cell(task, backbone, method, shown)
            for seed in seeds:
                name = labels.run_name(cell, seed, lists, {run.name for run in runs})
                own = lay_over(laid, of_seed(study, seed, name, document, laid))
                run = Document(document.path, own.values, own.places)
                if (file := _resolve(run, problems)) is not None:
                    runs.append(Planned(name, cell, seed, run, file))
                    if not parts[2].tune:
                        place = document.place(*parts[2].at)
                        _refuse_again(runs[-1], known, place, problems)
    unscored = {on_validation.unscored(run.file.task) for run in runs if study.choose} - {""}
    for said in sorted(unscored):
        problems.say(document.place("choose"), f"choose: {said}", kind="unscored")
    problems.raise_if_any()
    name, place = study.name or document.path.stem, document.place("budget")
    return Plan(
        name, document.path, study, seeds, tuple(runs), allow_code, place, base,
        forgetting.asked(study.forgetting, document), _spaces(study, document, lists[2]),
    )  # fmt: skip


def _refuse_again(run: Planned, known: dict[str, str], place: Place, problems: Problems) -> None:
    """Say so where a run is a known one by another name: it would be trained again for nothing."""
    what = json.dumps({**run.file.resolved, "name": ""}, sort_keys=True, default=str)
    other = known.setdefault(what, run.name)
    if other != run.name:
        said = f"{run.name} is the same run as {other}: nothing in them differs."
        problems.say(place, said, kind="twice", given=run.name)


def _spaces(study: Study, document: Document, methods: Sequence[Entry]) -> dict[str, Parsed]:
    """Return what is searched for each method: the study's `tune` with the method's own space over it.

    Raises:
        ConfigError: a method has a space, or a `vary`, that nothing reads.
    """
    for entry in methods:
        idle = "tune" if study.tune is None and entry.tune else "vary"
        if idle == "tune" or (study.tune is not None and entry.vary):
            said = {
                "tune": "the study has no tune: give its trials",
                "vary": "the study tunes: give tune",
            }
            place = document.place(*entry.at, idle)
            raise ConfigError(f"{idle} of a method: {said[idle]}.", place=place, kind="idle")
    if study.tune is None:
        return {}
    shared = study.tune.get("space", {})
    if not isinstance(shared, dict) or not all(shared or entry.tune for entry in methods):
        wrong = "tune.space: a section is wanted, a run file's key and what it may take."
        place = document.place("tune", "space") if "space" in study.tune else document.place("tune")
        kind = "not_allowed" if shared else "missing"
        raise ConfigError(wrong, place=place, kind=kind, given=shared or None)
    found = {}
    for entry in methods:
        space = {**shared, **entry.tune}
        places = moved(document, ("tune",), ()) | moved(document, (*entry.at, "tune"), ("space",))
        found[entry.label] = Parsed({**study.tune, "space": space}, places)
    return found


def of_seed(study: Study, seed: int, name: str, document: Document, laid: Parsed) -> Parsed:
    """Return what each run has of its own beside what is laid below it."""
    own = Parsed({"seed": seed, "name": name}, {})
    if not study.split_with_seed:
        return own
    place = document.place("split_with_seed")
    task = laid.values.get("task")
    mixed = isinstance(task, dict) and task.get("kind") == "mixture"
    key = "task.each.split_seed" if mixed else "task.split_seed"
    return variation.with_value(own, key, seed, place)


def _settings(study: Study, method: Entry, document: Document) -> Iterator[Parsed]:
    """Yield what each combination of `vary`, the study's and a method's own, lays over the rest."""

    def place(key: str) -> Place:
        above: Location = (*method.at, "vary") if key in method.vary else ("vary",)
        return document.place(*above, key)

    return variation.settings(study.vary | method.vary, place)


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
    variation.check(study.vary, ("vary",), document, problems)
    if len({*study.seeds}) < len(study.seeds) or not all(0 <= s < SEEDS for s in study.seeds):
        problems.say(document.place("seeds"), f"seeds: each once, at least 0 and below {SEEDS}.")


def based_on(base: str | dict[str, Any], document: Document, where: Location = ("base",)) -> Parsed:
    """Return the base's values and places; a file is looked for where the path of any key would be, which is
    beside the study file, then among the recipes."""
    if isinstance(base, str):
        try:
            found = config.read(base, folder=document.folder(*where))
        except ConfigError as error:
            raise error.at(document.place(*where)) from None
        if "base" in found.values:
            said = f"{base} is a study or a search itself, not a run file."
            place = document.place(*where)
            raise ConfigError(
                said, ("Name what it has as base.",), place=place, kind="not_allowed", given=base
            )
        return Parsed(found.values, dict(found.places))
    own = moved(document, ("base",), ())
    values = {key: value for key, value in base.items() if key != "extends"}
    return (
        lay_over(based_on(str(base["extends"]), document, ("base", "extends")), Parsed(values, own))
        if "extends" in base
        else Parsed(values, own)
    )


def _resolve(document: Document, problems: Problems) -> RunFile | None:
    """Return a run, or None and its problems: many combinations have the same, and each is said once."""
    try:
        return runfile.resolve(document)
    except GraftlabError as error:
        problems.include(error)
        return None
