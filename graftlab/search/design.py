"""A search file as a plan that can be carried out: every end of every range is checked at first."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from graftlab import config, runfile
from graftlab.config import Document, Parsed, Problems, Section, lay_over
from graftlab.config.parser import Location
from graftlab.config.section import Conflict
from graftlab.errors import ConfigError, GraftlabError, Place, unknown
from graftlab.rundir.records import Json
from graftlab.runfile import Root, RunFile, measures, on_validation
from graftlab.runs.evaluation import MEAN
from graftlab.search.sections import Pruner, Sampler, Winner
from graftlab.search.space import Range, applies, laid, ordered
from graftlab.study.design import based_on

SEARCHS_OWN = ("extends", "name", "paths", "seed", "tracking")
"""Sections that no trial may change: the search gives them, or they are not about what is computed."""
COSTS = ("trainable", "seconds", "memory")
"""What may be minimized beside a score: trained parameters, seconds of training, peak memory in bytes."""
COUNTED = (COSTS[0], COSTS[2])
"""What `graftlab plan` knows before a trial trains."""


class Search(Section):
    """The keys of a search file, beside `extends`."""

    name: str | None = None
    """Names the search and its directory; the file's own name unless given."""
    base: str | dict[str, Any]
    """What all trials share: a run file, a recipe's name, or a run file's keys. It is the default that the
    winner is compared with."""
    space: dict[str, Range] = Field(min_length=1)
    """A run file's key, such as `training.learning_rate`, and what it may take."""
    objective: tuple[str, ...] = ()
    """What is made best on validation: a metric of the task, its first unless given. Costs may follow
    (trainable, seconds, memory): then there is no one best trial but a front."""
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    trials: int | None = Field(20, ge=1)
    """How many are to end, by themselves or pruned; what fails does not count. `grid` tries all it has."""
    hours: float | None = Field(None, gt=0)
    """After so many hours at work, over all calls, no trial begins."""
    at_most: dict[str, float] = Field(default_factory=dict)
    """Limits that `graftlab plan` knows before a trial trains: `trainable` parameters, bytes of `memory`."""
    seed: int = Field(42, ge=0)
    """Of the sampler. Every trial runs at the base's own seed."""
    winner: Winner = Winner()

    @field_validator("space", mode="before")
    @classmethod
    def _lists_are_choices(cls, space: Any) -> Any:
        if not isinstance(space, Mapping):
            return space
        for key, given in space.items():
            if not isinstance(given, Mapping | list | tuple):
                said = "a list of values is wanted, or one of float, int and choice"
                raise Conflict(key, f"{key}: {said}", kind="not_allowed")
        return {key: _as_range(given) for key, given in space.items()}

    @model_validator(mode="after")
    def _check(self) -> "Search":
        if len({*self.objective}) < len(self.objective):
            raise Conflict("objective", "objective: each metric once", kind="not_allowed")
        if (
            len(self.objective) > 1
            and "pruner" in self.model_fields_set
            and self.pruner.name != "none"
        ):
            raise Conflict(
                "pruner", "pruner: with several objectives nothing is pruned; leave it out"
            )
        if len(self.objective) > 1 and self.winner.seeds:
            said = "winner: of several objectives no one trial is best, and none is confirmed"
            raise Conflict("winner", f"{said}; leave it out", kind="idle")
        if wrong := sorted(set(self.at_most) - set(COUNTED)):
            said = f"at_most: {unknown('limit', wrong[0], COUNTED)}"
            raise Conflict("at_most", said, kind="unknown")
        if self.trials is None and self.hours is None and self.sampler.name != "grid":
            raise Conflict("trials", "trials or hours: a search has an end")
        return self

    @property
    def prunes(self) -> bool:
        return self.pruner.name != "none" and len(self.objective) < 2


def _as_range(given: Any) -> Any:
    """Return a range with tuples in the place of lists, which pydantic wants behind such a validator."""
    if isinstance(given, list | tuple):
        return {"choice": tuple(given)}
    if not isinstance(given, Mapping):
        return given
    return {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}


@dataclass(frozen=True)
class Plan:
    """A search that can be carried out."""

    name: str
    path: Path
    search: Search
    base: Parsed
    file: RunFile
    """The base as it is: the default."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Where each field of the space stands."""
    allow_code: bool = False

    def document(self, values: Mapping[str, Json], name: str) -> Document:
        """Return a run file with the values of a trial."""
        places: dict[Location, Place] = {
            tuple(key.split(".")[:count]): place
            for key, place in self.places.items()
            for count in range(1, key.count(".") + 2)
        }
        over = lay_over(self.base, Parsed(laid(values), places))
        named = lay_over(over, Parsed({"name": name}, {}))
        return Document(self.path, named.values, named.places)


def read(path: str | Path, overrides: Sequence[str] = (), allow_code: bool = False) -> Plan:
    """Return the plan of a search file, or of a shipped one by its name; `overrides` win over the file.

    Raises:
        ConfigError: something in it is wrong, at any end of any range; all of it is said at once.
    """
    document, problems = config.read(path, overrides), Problems()
    if "base" not in document.values and {"backbone", "task", "method"} <= document.values.keys():
        raise ConfigError(
            "this is one run, not a search (base:, space:, ...).",
            (f"Use graftlab run {document.path}; or name it as the base of a search.",),
            place=document.place("backbone"), kind="run",
        )  # fmt: skip
    search = config.build(Search, document.values, document, (), problems)
    if search is None:
        problems.raise_if_any()
    assert search is not None
    base, name = based_on(search.base, document), search.name or document.path.stem
    return checked(search, document, base, name, allow_code)


def checked(
    search: Search,
    document: Document,
    base: Parsed,
    name: str,
    allow_code: bool = False,
    where: Location = (),
) -> Plan:
    """Return the plan of a search over a base; `where` is its key in the document, if it is a part of it.

    Raises:
        ConfigError: as `read`.
    """
    problems = Problems()
    _check(search, document, where, problems)
    problems.raise_if_any()
    file = runfile.resolve(Document(document.path, base.values, base.places))
    places = {key: document.place(*where, "space", key) for key in search.space}
    plan = Plan(name, document.path, search, base, file, places, allow_code)
    for values in corners(search):
        try:
            runfile.resolve(plan.document(values, name))
        except GraftlabError as error:
            problems.include(error)
    if file.seed in search.winner.seeds:
        problems.say(
            document.place(*where, "winner", "seeds"),
            f"winner.seeds: every trial has the seed {file.seed}, so it is not fresh.",
            kind="not_allowed", given=list(search.winner.seeds),
        )  # fmt: skip
    problems.raise_if_any()
    _check_objective(search, file, document)
    return plan


def _check(search: Search, document: Document, where: Location, problems: Problems) -> None:
    known = [key for key in Root.model_fields if key not in SEARCHS_OWN]
    for key, given in search.space.items():
        place = document.place(*where, "space", key)
        section = key.partition(".")[0]
        if section not in known:
            said = unknown("section", section, known)
            problems.say(
                place, f"space: {said} A whole key is wanted, as in training.learning_rate."
            )
        if search.sampler.name == "grid" and given.endless:
            said = f"{key} has no end of values for sampler: grid. Give it a step, or choice."
            problems.say(place, said, kind="not_allowed")
        for other, value in given.when.items():
            if other not in search.space:
                problems.say(place, f"{key}: when: {unknown('field', other, list(search.space))}")
            elif value not in (search.space[other].choice or (value,)):
                problems.say(place, f"{key}: when: {other} is never {value!r}.")
    if _round(search.space):
        problems.say(document.place(*where, "space"), "space: conditions go round in a circle.")


def _round(space: Mapping[str, Range]) -> bool:
    """Say whether a field's condition depends on itself."""
    rest = dict(space)
    while rest:
        ready = [key for key, r in rest.items() if not (set(r.when) & set(rest))]
        if not ready:
            return True
        rest = {key: r for key, r in rest.items() if key not in ready}
    return False


def corners(search: Search) -> Iterator[dict[str, Json]]:
    """Yield the values of trials among which every end of every range stands once."""
    seen: set[str] = set()
    for key, given in search.space.items():
        for probe in given.probes:
            values = _around(search.space, key, probe)
            told = json.dumps(values, sort_keys=True, default=str)
            if told not in seen:
                seen.add(told)
                yield values


def _around(space: Mapping[str, Range], key: str, probe: Any) -> dict[str, Json]:
    """Return the values of a trial in which a field has one value, and all others their first."""
    forced = {key: probe, **space[key].when}
    for other in list(forced):
        if other in space:
            forced |= {k: v for k, v in space[other].when.items() if k not in forced}
    values: dict[str, Json] = {}
    for name, given in ordered(space):
        if applies(given, values):
            values[name] = forced.get(name, given.probes[0])
    return values


def _reported(file: RunFile) -> tuple[str, ...]:
    """Return the metrics that runs may report: of a mixture the mean, then those of each task."""

    def own(config: Section) -> tuple[str, ...]:
        return (*(getattr(config, "metrics", ()) or measures.names()), "loss")

    if not file.task.parts:
        return own(file.task.config)
    each = (f"{name}/{one}" for name, part in file.task.parts.items() for one in own(part.config))
    return (MEAN, *each, "loss")


def _check_objective(search: Search, file: RunFile, document: Document) -> None:
    """Refuse a metric that the task cannot report, or not on validation. `Raises:` ConfigError."""
    metrics = _reported(file)
    for place, name in enumerate(search.objective):
        allowed = metrics if place == 0 else (*metrics, *COSTS)
        if name not in allowed:
            raise ConfigError(
                f"objective: {unknown('metric', name, allowed)}",
                place=document.place("objective"), kind="unknown", given=name, allowed=list(allowed),
            )  # fmt: skip
    for wanted in search.objective or (None,):  # the task's first
        if wanted not in COSTS and (said := on_validation.unscored(file.task, wanted)):
            at = document.place("objective" if wanted else "base")
            raise ConfigError(f"objective: {said}", place=at, kind="unscored", given=wanted)
