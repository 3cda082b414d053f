"""Layers of a large decoder, named so that the same ones can be had again, and checked by their hash."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.config import expand
from graftlab.errors import ModelError
from graftlab.weights import pretrained

if TYPE_CHECKING:
    from graftlab.weights.layers import Checkpoint


@dataclass(frozen=True)
class Donor:
    """Which layers are plugged in."""

    model: str
    """Hub id, or folder."""
    revision: str | None
    """The commit on the hub; None for a folder, whose layers are told by their hashes."""
    layers: list[int]
    """Their numbers, from 0, in the order in which they are passed."""
    sha256: list[str]
    """Hash of each layer's tensors."""
    dtype: str = "float32"
    """Number format that they are held in."""
    seed: int | None = None
    """They are drawn anew from it, with the shapes and norms of those layers; None: they are those layers."""
    config: dict[str, Any] | None = None
    """The decoder's own config, where the layers train: they are saved, and built without their model."""


def local(llm: str) -> Path | None:
    """Return the folder that `llm` names, if it holds a model."""
    folder = expand(Path(llm))
    return folder.absolute() if (folder / "config.json").is_file() else None


def open_model(llm: str, revision: str | None) -> "Checkpoint":
    """Return the checkpoint behind a folder, an alias or a hub id (in this order); no weights are read.

    Raises:
        ModelError: it cannot be found or read, or is no decoder.
        Refused: its weights are pickles.
    """
    from graftlab.weights import layers

    entry = None if local(llm) else pretrained.aliases(llm).get(llm)
    return layers.open(str(local(llm) or (entry or {}).get("id") or llm), revision=revision)


def choose(checkpoint: "Checkpoint", donor: Donor, pooled: bool) -> tuple[Donor, list[object]]:
    """Return the donor with where its layers come from and their hashes, and the layers."""
    found = [_layer(checkpoint, donor, index, pooled) for index in donor.layers]
    named = replace(
        donor,
        model=checkpoint.source,
        revision=None if local(checkpoint.source) else checkpoint.revision,
        sha256=[layer.sha256 for layer in found],
    )
    return named, found


def read(donor: Donor, pooled: bool) -> list[Any]:
    """Return the layers, frozen; with `pooled`, without the weights that a single vector does not need.

    Raises:
        ModelError: they cannot be read, or are not the ones that were named.
    """
    checkpoint = open_model(donor.model, donor.revision)
    found = [_layer(checkpoint, donor, index, pooled) for index in donor.layers]
    for layer, expected in zip(found, donor.sha256, strict=True):
        if layer.sha256 != expected:
            raise ModelError(
                f"layer {layer.index} of {donor.model} is not the one that was plugged in: its sha256 "
                f"is {layer.sha256}, not {expected}. Put the weights back that the model was trained with."
            )
    return found


def _layer(checkpoint: "Checkpoint", donor: Donor, index: int, pooled: bool) -> Any:
    if donor.seed is None:
        return checkpoint.load_layer(index, dtype=donor.dtype, pooled=pooled)
    return checkpoint.random_layer(index, seed=donor.seed, dtype=donor.dtype, pooled=pooled)


def empty(donor: Donor, pooled: bool) -> list[Any]:
    """Return layers with the weights still to be filled in, built from the decoder's config alone."""
    import torch
    from transformers import AutoConfig

    from graftlab.weights.layers import anatomy
    from graftlab.weights.layers.checkpoint import POOLED
    from graftlab.weights.layers.layer import Layer

    assert donor.config is not None
    found = []
    with torch.device("cpu"):  # not where transformers is building the rest: on the meta device
        config = AutoConfig.for_model(**donor.config)
        skeleton, lean = anatomy.build(config, donor.model), pooled and config.model_type in POOLED
        for index, sha256 in zip(donor.layers, donor.sha256, strict=True):
            block = anatomy.block(skeleton, index, lean).to_empty(device="cpu")
            anatomy.compute_buffers(skeleton.model, block)
            record: dict[str, object] = {
                "source": donor.model,
                "revision": donor.revision,
                "index": index,
                "dtype": donor.dtype,
                "sha256": sha256,
                "pooled": lean,
            }
            found.append(Layer(block, anatomy.shell(skeleton, index), record))
    return found
