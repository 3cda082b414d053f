"""What an adapted model is asked that it was not trained on, and how much worse it has become there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import model_validator

from graftlab.config import Conflict, Document, Problems, Section, given
from graftlab.config.paths import absolute
from graftlab.contracts import TaskKind
from graftlab.data import readers
from graftlab.errors import NOWHERE, CheckpointError, ConfigError, DataError, Words
from graftlab.rundir import files, manifest
from graftlab.rundir.records import Forgotten
from graftlab.rundir.run import Run
from graftlab.runfile import Part, checks, parts, resolve_task

GENERAL = Path(__file__).with_name("general.csv")
"""160 English sentences on eight subjects, written for this project: columns `text` and `label`."""
KEY = "forgetting"
AGAIN: Words = ("Delete it: it is measured again.",)


class Config(Section):
    """What runs are asked that they were not trained on; texts of this project's own unless given."""

    measure: bool = True
    """Whether runs are asked at all."""
    texts: Path | None = None
    """A file of texts for language models: .txt with one a line, or rows with a column `text`."""
    task: str | dict[str, Any] | None = None
    """A task in their place: a name of the catalogue, or a section. Of classes, it is learnt anew by a probe
    on frozen features; of texts, the loss on its test split counts."""

    @model_validator(mode="after")
    def _one_thing(self) -> "Config":
        if self.texts is not None and self.task is not None:
            raise Conflict("task", "give texts or a task, not both", other="texts")
        if not self.measure and (self.texts is not None or self.task is not None):
            raise Conflict("measure", "measure: false asks nothing: leave texts and task out")
        return self


class Asked(NamedTuple):
    """What runs are asked."""

    name: str
    """Names the record in a run."""
    texts: Path | None = None
    task: Part[TaskKind] | None = None
    written: Mapping[str, Any] = {}
    """The section that asks for it, with absolute paths."""

    @property
    def is_general(self) -> bool:
        """Whether it is what this project has written."""
        return self.texts is None and self.task is None


def asked(config: Config, document: Document) -> Asked | None:
    """Return what the section `forgetting` of a document asks for; None where nothing is to be asked.

    Raises:
        ConfigError, DataError: the file of texts is not there, or the task is wrong.
    """
    if not config.measure:
        return None
    if config.texts is not None:
        try:
            return of_texts(config.texts)
        except ConfigError as error:
            raise error.at(document.place(KEY, "texts")) from None
    return Asked("general") if config.task is None else _of_task(config.task, document)


def of_texts(path: Path) -> Asked:
    """Return a file of texts as what is asked. `Raises:` ConfigError: it is not there, or no such file."""
    if not path.is_file():
        raise ConfigError(f"there is no file {path}.", kind="missing", given=str(path))
    if readers.suffix_of(path) not in readers.SUFFIXES:
        raise ConfigError(
            f"{path} is no file of texts: one of {', '.join(readers.SUFFIXES)} is wanted.",
            kind="not_allowed", given=str(path), allowed=list(readers.SUFFIXES),
        )  # fmt: skip
    return Asked(path.name.partition(".")[0], texts=path, written={"texts": str(path)})


def of_word(word: str) -> Asked:
    """Return what one word asks for: `general`, a file of texts, a task's name, or a run file with a task.

    Raises:
        ConfigError, DataError: there is no such thing.
    """
    if word == "general":
        return Asked(word)
    if readers.suffix_of(Path(word)) in readers.SUFFIXES:
        return of_texts(Path(word))
    part = resolve_task(word)
    return Asked(_name(part), task=part)


def _of_task(task: str | dict[str, Any], document: Document) -> Asked:
    problems = Problems()
    section = {"name": task} if isinstance(task, str) else task
    above = (KEY, "task")
    places = {
        ("task", *at[len(above) :]): place
        for at, place in document.places.items()
        if at[: len(above)] == above
    }
    own = Document(document.path, {"task": section}, places, document.origin, document.from_shell)
    part = parts.task(own, problems)
    if part is not None:
        checks.add(problems, own, "task", part.module.check(part.config), DataError)
    problems.raise_if_any()
    assert part is not None, "what makes it None is a problem"
    written = absolute(type(part.config), section, own, ("task",))
    return Asked(_name(part), task=part, written={"task": written})


def _name(part: Part[TaskKind]) -> str:
    return str(part.config.name or part.name)


def path(run: Run, name: str) -> Path:
    """Return where a run keeps what it has forgotten of something."""
    return run.path / "evaluation" / f"forgetting-{name}.json"


def of_run(run: Run, name: str) -> Forgotten | None:
    """Return what was measured of a run; None where nothing was.

    Raises:
        CheckpointError: the record is damaged.
    """
    file = path(run, name)
    if not file.is_file():
        return None
    run.check_if_listed(file)
    try:
        found: Forgotten = files.read_json(file)
    except (OSError, ValueError) as error:
        raise CheckpointError(manifest.fault(file, "unreadable", AGAIN)) from error
    if not isinstance(found, dict) or Forgotten.__required_keys__ - found.keys():
        raise CheckpointError(manifest.fault(file, "unreadable", AGAIN))
    return found


def general() -> Part[TaskKind]:
    """Return the subjects of this project's own sentences as a task of classes."""
    problems = Problems()
    section = {"kind": "classification", "files": {"train": str(GENERAL)}, "test_share": 0.5}
    part = parts.task(given({"task": section}, NOWHERE), problems)
    problems.raise_if_any()
    assert part is not None
    return part
