"""What a run file is, before and after it is resolved."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import Field, field_validator

from graftlab.config import Document, Paths, Section
from graftlab.config.parser import Location
from graftlab.config.section import MAX_NAME
from graftlab.contracts import BackboneKind, HookKind, Method, Note, TaskKind
from graftlab.errors import Place

if TYPE_CHECKING:
    from graftlab.training.config import Config as Training
    from graftlab.training.trackers import Config as Tracking

Kind = TypeVar("Kind", BackboneKind, HookKind, Method, TaskKind)


class Root(Section):
    """The keys of a run file, beside `extends`."""

    name: str | None = None
    """Names the run and its directory; the file's own name unless given."""
    backbone: dict[str, object]
    """The pretrained model: `model` (alias, hub id or folder), or `kind: tiny`."""
    task: dict[str, object]
    """Data and metrics: `name` of a catalogue entry, or `kind` and where the data are."""
    method: dict[str, object]
    """How the backbone is adapted: `name`, and the method's own fields."""
    hooks: tuple[str | dict[str, object], ...] = ()
    """What else happens between the loop's steps: names of hooks, or `{name: ..., field: ...}`."""
    analysis: dict[str, object] | None = None
    """Tables of gradients while it trains, `{every: 200}`: the hook `analysis`, with its fields."""
    training: dict[str, object] | None = None
    """How it is trained; the same for every method."""
    tracking: dict[str, object] | None = None
    """Where figures go beside the run directory."""
    paths: Paths | None = None
    """Where things are kept."""
    seed: int = Field(0, ge=0, lt=2**63)
    """All randomness of the run comes from it."""
    deterministic: bool = False
    """Use deterministic algorithms only, where the device has them; slower."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str | None) -> str | None:
        if name is None:
            return name
        if len(name.encode()) > MAX_NAME - 16:  # room for -2, -3, ... and temporary siblings
            raise ValueError("name is too long for a folder")
        if (
            not name.strip()
            or name[0] == "."
            or name.endswith(" ")
            or set(name) & set('/\\\0:"<>|?*')
        ):
            raise ValueError(
                f'name {name!r} cannot name a folder: no / \\ : " < > | ? * and no dot in front'
            )
        return name


@dataclass(frozen=True)
class Part(Generic[Kind]):
    """What one section of a run file names, with its fields."""

    name: str
    """Of the module: a task's and a backbone's kind, a method's or a hook's name."""
    module: Kind
    config: Any
    """The module's `Config`."""
    parts: "Mapping[str, Part[TaskKind]]" = field(default_factory=dict)
    """Of a task that is made of several: each of them, by its name."""


@dataclass(frozen=True)
class RunFile:
    """A run file that can be run."""

    name: str
    backbone: Part[BackboneKind]
    task: Part[TaskKind]
    method: Part[Method]
    training: "Training"
    tracking: "Tracking"
    paths: Paths
    seed: int
    deterministic: bool
    resolved: dict[str, Any]
    """Every field with its value and every path absolute, to be written as config.yaml."""
    hooks: tuple[Part[HookKind], ...] = ()
    """What the run brings beside its method, in this order."""
    places: Mapping[Location, Place] = field(default_factory=dict)
    """Where each key that was given stands."""
    document: Document | None = None
    """The file, where it stands in one: where each key stands."""
    notes: tuple[Note, ...] = ()
    """What a reader of the file has to know: keys without effect, a folder where a model's name was meant."""
