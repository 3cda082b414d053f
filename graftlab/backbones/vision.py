"""An image model: any architecture that transformers classifies images with (ViT, Swin, ...)."""

from typing import TYPE_CHECKING

from graftlab.backbones import _pretrained
from graftlab.contracts import Backbone, Problem
from graftlab.errors import ConfigError, ModelError
from graftlab.weights.pretrained import locate

if TYPE_CHECKING:
    from torch import nn


class Config(_pretrained.Source):
    """All that an image model needs to be told stands in its source."""


def load(config: Config, problem: Problem, seed: int, meta: bool = False) -> Backbone:
    """Return the image model with a head for `problem`, and its processor in the PIL version.

    `meta` builds on the meta device, without weights.

    Raises:
        ConfigError: the problem is not one for images.
        ModelError: the model cannot be found or loaded, or its processor makes another size.
        Refused: it needs pickles or code of its own.
    """
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    if problem.kind == "tokens":
        raise ConfigError("an image model does not generate text. Choose a decoder.")
    located = locate(config.model, config.revision, weights=not meta)
    fields = _pretrained.config_fields(config, problem)
    loaded = _pretrained.load_model(AutoModelForImageClassification, located, fields, seed, meta)
    try:
        with _pretrained.quiet():
            # PIL, so that the pixels do not depend on whether torchvision is installed
            processor = AutoImageProcessor.from_pretrained(
                located.folder, backend="pil", trust_remote_code=False
            )
    except (ImportError, ValueError, OSError, KeyError, TypeError) as error:
        raise _pretrained.cannot_load(located, error) from error
    _check_size(processor, loaded.model, located.source)
    return Backbone(
        model=loaded.model,
        kind="vision",
        processor=processor,
        head=loaded.head,
        max_length=None,
        record=located.record(*loaded.notes),
    )


def _check_size(processor: object, model: "nn.Module", source: str) -> None:
    """Raise ModelError if a model with position embeddings would get images of another size."""
    wanted = getattr(model.config, "image_size", None)
    made = (
        (
            getattr(processor, "crop_size", None)
            if getattr(processor, "do_center_crop", False)
            else None
        )
        or getattr(processor, "size", None)
        or {}
    )
    height = made.get("height", made.get("shortest_edge"))
    if (
        isinstance(wanted, int)
        and hasattr(model.config, "patch_size")
        and height not in (None, wanted)
    ):
        raise ModelError(
            f"processor and model of {source} do not fit: the processor makes images {height} "
            f"pixels high, the model takes {wanted}. Correct preprocessor_config.json."
        )
