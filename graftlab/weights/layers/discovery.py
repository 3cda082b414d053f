"""Find a decoder's checkpoint, in a folder or on the hub, and refuse what no layer can be read from."""

import functools
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.errors import ModelError, Refused
from graftlab.weights import bounds, pretrained
from graftlab.weights.hub import refuse_kernels
from graftlab.weights.layers.checkpoint import Checkpoint
from graftlab.weights.layers.source import UNQUANTIZED, Folder, Source

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from graftlab.weights.layers.layer import Layer

logger = logging.getLogger(__name__)


def open(
    model: str, *, revision: str | None = None, cache: Path | None = None, keep: bool = True
) -> "Checkpoint":
    """Open a decoder's checkpoint: a folder, or a hub id (aliases are resolved by the caller).

    Reads config.json and the index only (of a single file, its header). Layers that come from the hub
    are kept on disk, by commit, under `cache` (`graftlab-layers` in HF_HOME unless given), unless
    `keep` is False. A folder's `revision` is the one that its `Checkpoint.revision` has. Where the hub
    is out of reach, a package may have the model (`graftlab.weights.packages`).

    Raises:
        ModelError: the model cannot be found or read, is no decoder, or is quantized.
        Refused: its weights are pickles, or it needs code of its own.
        DiskError: there is no room for what comes from the hub.
    """
    folder = Path(os.path.expandvars(model)).expanduser()
    if (folder / "config.json").is_file():
        local = Folder(folder)
        if revision not in (None, local.revision):
            raise ModelError(
                f"{model} is a folder, whose revision is {local.revision} (sha256 over {local.index} or "
                f"its header), not {revision}. Put that checkpoint back, or give no revision.",
                kind="other_revision",
            )
        return Checkpoint(local, _read_config(local))
    _refuse_what_is_no_hub_id(model, folder)
    source = _from_hub(model, revision, cache, keep)
    return Checkpoint(source, _read_config(source))


def _from_hub(model: str, revision: str | None, cache: Path | None, keep: bool) -> Source:
    """Return a model of the hub; the one that a package has, where the hub does not give it.

    A package's model is named as the hub's, with a folder's revision.
    """
    from graftlab.weights.layers.remote import Hub

    try:
        return Hub(model, revision, cache, keep)
    except ModelError as error:
        if (package := pretrained.package_of(model)) is None:
            raise
        folder, note = pretrained.from_package(model, package, error)
        packaged = Folder(folder, model)
        if revision not in (None, packaged.revision):
            raise
        packaged.notes.append(note)
        _say(str(note))
        return packaged


@functools.cache
def _say(note: str) -> None:
    """Log a note, once."""
    logger.warning(note)


def load_layer(
    model: str,
    index: int,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    pooled: bool = False,
    cache: Path | None = None,
    keep: bool = True,
) -> "Layer":
    """Return one layer of a model; see `open` and `Checkpoint.load_layer`."""
    checkpoint = open(model, revision=revision, cache=cache, keep=keep)
    return checkpoint.load_layer(index, dtype=dtype, pooled=pooled)


def _refuse_what_is_no_hub_id(model: str, folder: Path) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} is an adapter. Name the model that it was trained on.", kind="adapter"
        )
    if folder.is_dir():
        raise ModelError(
            f"the folder {folder} has no config.json: it holds no model of transformers"
        )
    if folder.is_file():
        raise ModelError(
            f"{folder} is a file. Name the folder that holds config.json and the weights."
        )
    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise ModelError(
            f"{model!r}: there is no such folder, and no hub id looks so.", kind="unknown"
        ) from error


def _read_config(source: Source) -> "PreTrainedConfig":
    from transformers import AutoConfig

    try:
        whole = json.loads(source.text("config.json"))
        if quantization := whole.get("quantization_config"):
            method = quantization.get("quant_method", "a method that it does not name")
            raise ModelError(f"{source.name} is quantized ({method}). {UNQUANTIZED}")
        refuse_kernels(source.name, whole)
        bounds.refuse(source.name, whole)
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    except ModelError:
        raise
    except (ValueError, OSError, KeyError, AttributeError) as error:
        if "trust_remote_code" in str(error):  # a plain ValueError of transformers
            raise Refused(
                f"{source.name} needs code of its own (auto_map in its config.json), which is not run.",
                kind="foreign_code",
            ) from error
        raise ModelError(f"{source.name}: config.json cannot be used: {error}") from error
    return config.get_text_config(decoder=True)
