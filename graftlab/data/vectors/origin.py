"""What vectors were made with, which is what makes those of two files comparable."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

NAMES = ("model", "revision")
"""Fields that say where a model is, not what it is: where weights are hashed, these decide nothing."""


@dataclass(frozen=True)
class Origin:
    """An embedding model, and how it was asked."""

    model: str
    """Hub id or folder."""
    revision: str | None
    """The commit on the hub."""
    sha256: Mapping[str, str]
    """Hash of each weight file; empty where it is not known."""
    prompt: str
    """What was put before each text."""
    pooling: str
    """How tokens became one vector: `mean`, `cls`, `lasttoken`, ..."""
    normalized: bool
    """Whether each vector has length 1."""
    truncate_dim: int | None
    """So many first numbers of each vector were kept; None: all."""
    max_seq_length: int | None
    """Tokens of a text that were read."""
    precision: str
    """Number format that the model computed in."""

    def as_json(self) -> dict[str, object]:
        """Return what stands in a file's header and in an adapter's config."""
        return {**asdict(self), "sha256": dict(self.sha256)}

    def as_text(self) -> str:
        """Return the same as one line of JSON."""
        return json.dumps(self.as_json(), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> "Origin":
        """Return what `as_json` was made of. `Raises:` ValueError: it is not that."""
        names = {field.name for field in fields(cls)}
        if set(record) != names:
            odd = ", ".join(sorted(names ^ set(record)))
            raise ValueError(f"the record of how vectors were made has other fields: {odd}")
        return cls(**record)  # type: ignore[arg-type]


def differences(one: Origin, other: Origin) -> dict[str, tuple[object, object]]:
    """Return the fields in which two differ so that their vectors cannot be compared, with both values."""
    told = bool(one.sha256) and bool(other.sha256)
    names = [field.name for field in fields(Origin)]
    skipped = NAMES if told else ("sha256",)
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in names}
    return {
        name: pair for name, pair in pairs.items() if name not in skipped and pair[0] != pair[1]
    }
