"""What a part of a run file is: a frozen record of documented fields; and the paths of a run."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, ConfigDict, field_validator

MAX_NAME = 255  # bytes of one path component, on every common file system


def expand(path: Path) -> Path:
    """Return the path with `$VAR`, `${VAR}` and `~` replaced.

    Raises:
        ValueError: a variable is not set, or no file system takes such a name.
    """
    text = os.path.expandvars(str(path))
    if unset := re.search(r"\$(\w+|\{[^}]*\})", text):
        raise ValueError(f"the environment variable {unset[0]} in {str(path)!r} is not set")
    if "\0" in text:
        raise ValueError("a path cannot hold a NUL character")
    if any(len(os.fsencode(part)) > MAX_NAME for part in Path(text).parts):
        raise ValueError(f"a part of the path is longer than {MAX_NAME} bytes")
    return Path(text).expanduser()


class NamesModel:
    """Marks the text of a field that names a pretrained model: an alias, a hub id, or a folder."""


ModelName = Annotated[str, NamesModel()]


class Conflict(ValueError):
    """What a validator of several keys raises: `key`, one of them, is where the problem is shown.

    `other` is one that null takes back, and then `key` alone counts, or the other way round.
    """

    def __init__(self, key: str, said: str, kind: str = "conflict", other: str = "") -> None:
        super().__init__(said)
        self.key = key
        self.kind = kind
        self.other = other


class Section(BaseModel):
    """A frozen part of a run file that refuses unknown keys; docstrings stand under fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _expand_paths(cls, value: object) -> Any:
        if isinstance(value, Path):
            return expand(value)
        if isinstance(value, tuple) and any(isinstance(item, Path) for item in value):
            return tuple(expand(item) for item in value)
        return value


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "graftlab"


class Paths(Section):
    """Where things are kept. `$VAR`, `${VAR}` and `~` are expanded."""

    cache: Path = pydantic.Field(default_factory=_cache)
    """What can be made again. Files fetched from the hub are kept where HF_HOME says."""
    prepared: Path | None = None
    """Data sets of the hub as tables, made once; left out, the folder `datasets` under `cache`."""
    runs: Path = Path("runs")
    """Run directories, one folder a run."""

    @property
    def tables(self) -> Path:
        """Where data sets of the hub are kept as tables."""
        return self.prepared or self.cache / "datasets"
