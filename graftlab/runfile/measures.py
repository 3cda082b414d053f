"""Metrics with their settings, by the one name that each has in run files, results and `best_by`.

A metric with its usual settings is called like its module; with others as the metric's catalogue names them
(`graftlab/metrics/catalogue/MODULE.yaml`), else `MODULE(setting=value,...)`. All of these can be written in a
run file in the place of a mapping, `{name: MODULE, setting: value}`.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graftlab import registry
from graftlab.config import Document, Problems, Section, build, closest, given, read_yaml
from graftlab.config.parser import Location, scalar
from graftlab.contracts import Metric, Prediction, Score
from graftlab.errors import ConfigError, unknown

SPELLED = re.compile(r"^(\w+)\((.*)\)$")
SETTING = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^",()]*)(?:,|$)')
PLAIN = re.compile(r"[\w.+-]+")


class Entry(NamedTuple):
    """A name of the catalogue."""

    module: str
    about: str
    settings: Mapping[str, object]


@dataclass(frozen=True)
class Measure:
    """A metric as it is asked for: its module, with settings where it has some."""

    name: str
    module: Metric
    config: Section | None

    @property
    def num_classes(self) -> int | None:
        """For how many classes it is, and no more; None for any number."""
        return self.module.num_classes(*self._settings)

    @property
    def explains(self) -> bool:
        return self.module.explain is not None

    def score(self, predictions: Sequence[Prediction]) -> Score:
        """Return the value with its standard error, or why there is none. `Raises:` DataError."""
        return self.module.score(predictions, *self._settings)

    def each(self, predictions: Sequence[Prediction]) -> list[float | None] | None:
        """Return the value of each prediction; None of a metric that has none. `Raises:` DataError."""
        each = self.module.each
        return None if each is None else each(predictions, *self._settings)

    def explain(self, row: Mapping[str, object]) -> dict[str, object]:
        """Return how it came to score one prediction, as JSON."""
        assert self.module.explain is not None, self.name
        return self.module.explain(row, *self._settings)

    @property
    def _settings(self) -> tuple[Section, ...]:
        return () if self.config is None else (self.config,)


@functools.cache
def catalogue() -> dict[str, Entry]:
    """Return the names that the catalogue has for metrics with their settings.

    Raises:
        ConfigError: a package outside the project takes one of them for its metric.
    """
    found = {
        name: Entry(module, values["about"], {k: v for k, v in values.items() if k != "about"})
        for module, path in registry.catalogue("metrics").items()
        for name, values in read_yaml(path).items()
    }
    if taken := sorted(found.keys() & set(registry.names("metrics"))):
        raise ConfigError(
            f"a package names its metric {taken[0]!r}, but {found[taken[0]].module} with other settings has "
            f"that name already. Rename it in the package's entry points, or uninstall it."
        )
    return found


def names() -> list[str]:
    """Return the names that are known without settings, sorted."""
    return sorted({*catalogue(), *registry.names("metrics")})


@functools.cache
def measure(name: str) -> Measure:
    """Return the metric of that name, however it is spelled; its own `name` is the one of all spellings.

    Raises:
        ConfigError: there is none, or its settings are wrong.
    """
    problems = Problems()
    found = _built(_parted(name), (name,), given({}), problems)
    problems.raise_if_any()
    assert found is not None
    return found


def read(
    values: Sequence[object], where: Location, document: Document, problems: Problems
) -> list[object]:
    """Return the names of the metrics that a list of a run file, at `where`, asks for.

    Entries are names, or mappings of `name` and settings. A wrong one is left out and said; so is one that
    is neither, by the section that it stands in.
    """
    found: list[object] = []
    for number, value in enumerate(values):
        if not isinstance(value, str | Mapping):
            found.append(value)
            continue
        asked = _parted(value) if isinstance(value, str) else dict(value)
        if (built := _built(asked, (*where, number), document, problems)) is not None:
            found.append(built.name)
    return found


def moved(name: str, place: Callable[[str], str]) -> str:
    """Return a metric's name, a task's before it or not, with each absolute path among its settings as
    `place` has it; any other text as it is."""
    task, slash, own = name.rpartition("/")
    module, *settings = _parted(own).items()
    if not any(str(value)[:1] == "/" for _, value in settings):
        return name
    said = ((k, place(str(v)) if str(v)[:1] == "/" else v) for k, v in settings)
    return f"{task}{slash}{_called(str(module[1]), dict(said))}"


def _parted(name: str) -> dict[str, object]:
    """Return `MODULE(setting=value,...)` as a mapping; any other text is a name without settings."""
    spelled = SPELLED.fullmatch(name)
    settings = SETTING.findall(spelled[2]) if spelled else []
    if spelled is None or "".join(f"{key}={value}," for key, value in settings) != f"{spelled[2]},":
        return {"name": name}
    values = {k: json.loads(v) if v.startswith('"') else scalar(v) for k, v in settings}
    return {"name": spelled[1], **values}


def _built(
    asked: Mapping[str, object], where: Location, document: Document, problems: Problems
) -> Measure | None:
    """Return a metric with its settings; None, and a problem, where it or one of them is wrong."""
    said, place = ".".join(map(str, where)), document.place(*where, "name")
    settings = {key: value for key, value in asked.items() if key != "name"}
    if "name" not in asked:
        near = closest("name", settings)
        hint = f" Did you mean 'name' by {near!r}?" if near else ""
        text = f"{said}.name is missing.{hint} Known: {', '.join(names())}."
        problems.say(place, text, kind="missing", allowed=names())
        return None
    name = str(asked["name"])
    if name not in names():
        message = unknown("metric", name, names())
        problems.say(place, f"{said}: {message}", kind="unknown", given=name, allowed=names())
        return None
    entry = catalogue().get(name, Entry(name, "", {}))
    module = registry.find("metrics", entry.module)
    if module.Config is None:
        for key in settings:
            text = f"{said}.{key}: the metric {name} has no settings."
            problems.say(document.place(*where, key), text, kind="unknown", given=key)
        return None if settings else Measure(name, module, None)
    config = build(module.Config, {**entry.settings, **settings}, document, where, problems)
    return None if config is None else Measure(_named(entry.module, config), module, config)


def _named(module: str, config: Section) -> str:
    """Return the one name of a metric with these settings."""
    for name, entry in catalogue().items():
        if entry.module == module and type(config)(**entry.settings) == config:
            return name
    other = config.model_dump(exclude_defaults=True)
    return _called(module, other) if other else module


def _called(module: str, settings: Mapping[str, object]) -> str:
    return f"{module}({','.join(f'{key}={_spelled(value)}' for key, value in settings.items())})"


def _spelled(value: object) -> str:
    """Return a setting as it is read back; without a slash, which parts a task's name from its metric's."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and scalar(value) == value:
        return value
    return json.dumps(value).replace("/", r"\u002f")
