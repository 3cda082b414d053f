"""Find a pretrained model: an alias, a folder or a hub id becomes a folder with hashed weights.

Weights are safetensors only. Tokens come from the environment (`HF_TOKEN`) and are never repeated.
"""

import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftlab import registry
from graftlab.config import read_yaml
from graftlab.config.section import MAX_NAME
from graftlab.contracts import Note, written
from graftlab.errors import ModelError, nearest
from graftlab.weights import bounds, hashes, packages
from graftlab.weights.hub import fetch

# model_type in config.json, where the architecture's name alone does not tell the kind
# fmt: off
ENCODERS = frozenset({
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie",
    "eurobert", "funnel", "ibert", "mobilebert", "modernbert", "mpnet", "nomic_bert", "roberta",
    "roberta-prelayernorm", "squeezebert", "xlm-roberta", "xlm-roberta-xl",
})
DECODERS = frozenset({
    "bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode",
    "gpt_neo", "gpt_neox", "gptj", "granite", "llama", "ministral", "mistral", "mixtral",
    "olmo", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm", "starcoder2",
})
VISION = frozenset({
    "beit", "convnext", "convnextv2", "deit", "dinov2", "efficientnet", "mobilenet_v2",
    "mobilevit", "regnet", "resnet", "segformer", "swin", "swinv2", "vit", "vit_msn",
})
# fmt: on


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
    notes: tuple[Note, ...] = ()
    """What the user has to know of this choice."""

    def record(self, *notes: Note) -> dict[str, object]:
        """Return what a run keeps of the model; `notes` are added to our own."""
        return {
            "source": self.source,
            "revision": self.revision,
            "sha256": self.sha256,
            "notes": written((*self.notes, *notes)),
        }


@functools.cache
def aliases(word: str = "") -> dict[str, dict[str, Any]]:
    """Return every alias of the catalogue, in every spelling, with what is known of its model.

    With a `word`, at least those that it is a spelling or the hub id of: to parse all takes a while.
    """
    entries: dict[str, dict[str, object]] = {}
    for path in registry.catalogue("backbones", word).values():
        for name, entry in read_yaml(path).items():
            for spelling in (name, *entry.get("spelled", ())):
                assert spelling not in entries, (path, spelling)
                entries[spelling] = entry
    return entries


def kind_of(model: str) -> str | None:
    """Return encoder, decoder or vision; None if only the hub knows.

    Raises:
        ModelError: the model's config.json cannot be read.
    """
    if (config := _known_config(model)) is None:
        entry = aliases(model).get(model)
        return str(entry["kind"]) if entry else None
    model_type = config.get("model_type")
    for kind, types in (("encoder", ENCODERS), ("decoder", DECODERS), ("vision", VISION)):
        if model_type in types:
            return kind
    architecture = "".join((config.get("architectures") or ("",))[:1])
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "decoder"
    if architecture.endswith("ForImageClassification"):
        return "vision"
    return "encoder" if architecture.endswith(("ForMaskedLM", "ForPreTraining")) else None


def model_type_of(model: str) -> str | None:
    """Return the architecture's name in transformers (`bert`, `llama`); None if only the hub knows.

    Raises:
        ModelError: the model's config.json cannot be read.
    """
    if (config := _known_config(model)) is None:
        entry = aliases(model).get(model)
        return entry["model_type"] if entry else None
    return config.get("model_type")


def _known_config(model: str) -> dict[str, Any] | None:
    """Return config.json of a folder, or of a hub id in the cache; None where there is neither."""
    if folder := _local(model):
        return read_config(folder)
    if model in aliases(model) or not _is_hub_id(model):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json")
    return read_config(Path(cached).parent) if isinstance(cached, str) else None


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model folder's config.json.

    Raises:
        ModelError: it is not a JSON object in UTF-8.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds {type(config).__name__}, not a JSON object")
    bounds.refuse(str(path), config)
    return config


def locate(model: str, revision: str | None = None, weights: bool = True) -> Located:
    """Return the folder that holds a model; weights are fetched and hashed if `weights`.

    A folder goes before an alias, and an alias before a hub id; `revision` is for the hub.

    Raises:
        ModelError: the model cannot be found, fetched or read, or its files are damaged.
        Refused: its weights are pickles.
    """
    if folder := _local(model):
        notes: tuple[Note, ...] = ()
        if is_known(model):
            notes = (Note.of("folder_of_that_name", model=model, folder=str(folder.resolve())),)
        if revision:
            raise ModelError(
                f"backbone.revision {revision!r} is for models on the hub, but {model} is the "
                f"folder {folder.resolve()}. Remove the key."
            )
        read_config(folder)
        source = str(folder.absolute())  # an adapter that names it may be loaded from anywhere
        return Located(source, folder, None, hashes.of_folder(folder) if weights else {}, notes)
    hub_id = aliases(model).get(model, {"id": model})["id"]
    if hub_id is None:
        raise ModelError(
            f"{model} is made on the spot: it is a backbone.kind, and has no files.",
            kind="no_files",
        )
    if not _is_hub_id(hub_id):
        raise ModelError(f"backbone.model {model!r}: {not_found(model)}")
    try:
        fetched = fetch(hub_id, revision, weights)
    except ModelError as error:
        if not revision and (package := package_of(hub_id)):
            return _packaged(model, hub_id, package, weights, error)
        close = nearest(model, aliases())
        hint = (
            f" Did you mean the alias {close!r}?" if close and model not in aliases(model) else ""
        )
        raise ModelError(f"{error}{hint}") from error
    sha256 = hashes.of_folder(fetched.folder) if weights else {}
    return Located(hub_id, fetched.folder, fetched.commit, sha256, fetched.notes)


def _local(model: str) -> Path | None:
    """Return the folder that `model` names, if it holds a model."""
    path = Path(os.path.expandvars(model)).expanduser()
    if any(len(os.fsencode(part)) > MAX_NAME for part in path.parts) or "\0" in model:
        raise ModelError(f"backbone.model has a part of more than {MAX_NAME} bytes, or a NUL")
    return path if (path / "config.json").is_file() else None


def _is_hub_id(model: str) -> bool:
    """Say whether a model of that name can exist on the hub: `name` or `owner/name`."""
    return bool(re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model, re.ASCII)) and ".." not in model


def is_known(model: str) -> bool:
    """Return whether a name is an alias, or that of a model on the hub: `owner/name`."""
    return model in aliases(model) or (_is_hub_id(model) and "/" in model)


def not_found(model: str) -> str:
    """Return why a path holds no model."""
    path = Path(os.path.expandvars(model)).expanduser()
    if (path / "adapter_config.json").is_file():
        return f"{path} is an adapter. Give the model that it was trained on as backbone.model."
    if path.is_dir():
        return f"the folder {path} has no config.json: it does not hold a model of transformers"
    if path.is_file():
        return f"{path} is a file. Give the folder that holds config.json and the weights."
    close = nearest(model, aliases())
    hint = f" Did you mean the alias {close!r}?" if close else ""
    return f"there is no such folder, {path.absolute()}, and no hub id looks so.{hint}"


def package_of(hub_id: str) -> packages.Package | None:
    """Return the package that carries a model of the hub, if the catalogue knows one."""
    entries = (entry for entry in aliases(hub_id).values() if entry["id"] == hub_id)
    return next((packages.Package(**e["package"]) for e in entries if "package" in e), None)


def from_package(model: str, package: packages.Package, reason: ModelError) -> tuple[Path, Note]:
    """Return the folder of a package's model, and what is to be said: it is taken for `reason`.

    Raises:
        ModelError: the package is not installed, or carries another file; `reason` comes first.
        DiskError: there is no room for it.
    """
    try:
        folder = packages.folder(package)
    except ModelError as error:
        raise ModelError(f"{reason} {error}") from reason
    return folder, Note.of(
        "from_a_package",
        model=model,
        package=package.name,
        equal=not package.file.endswith(".gguf"),
        reason=str(reason),
    )


def _packaged(
    model: str, hub_id: str, package: packages.Package, weights: bool, reason: ModelError
) -> Located:
    folder, note = from_package(model, package, reason)
    sha256 = hashes.of_folder(folder) if weights else {}
    if weights:
        packages.check(package, folder, sha256)
    return Located(hub_id, folder, None, sha256, (note,))
