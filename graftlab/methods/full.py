"""Full fine-tuning: every weight of the backbone trains.

Howard & Ruder, 2018, arXiv 1801.06146. The reference that the other methods are measured against.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.config import Section
from graftlab.contracts import Attached, Backbone, Excused, Promises, Setting
from graftlab.errors import ModelError
from graftlab.rundir import files

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

PROMISES = Promises(
    freezes_backbone=Excused("all of the backbone trains: that is the method"),
    turns_off=Excused("every weight has moved, and the backbone is not kept beside it"),
    quantized=Excused("every weight trains, and one of 4 or 8 bits cannot take small steps"),
    usual_rates=(1e-6, 1e-4),  # around the 2e-5 to 5e-5 of Devlin et al. (2019, arXiv 1810.04805)
)

WEIGHTS = "model.safetensors"


class Config(Section):
    """Full fine-tuning has no settings of its own."""


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the backbone with every weight trainable, in float32."""
    model = backbone.model.float()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return Attached(model)


def save(model: "PreTrainedModel", folder: Path) -> None:
    """Write all weights, once where they are tied, and the model's config beside them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.cpu().contiguous() for name, weight in _untied(model).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    model.config.save_pretrained(folder)


def _untied(model: "nn.Module") -> "dict[str, Tensor]":
    """Return the state dict with each tied weight under its first name only.

    `safetensors.torch.save_model` does so too, but picks the name at random.
    """
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    state = model.state_dict()
    for name, weight in state.items():
        first.setdefault((weight.data_ptr(), tuple(weight.shape)), name)
    kept = {*first.values()}
    return {name: weight for name, weight in state.items() if name in kept}


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved weights.

    Raises:
        ModelError: the file is missing or damaged, has a number that is not finite, or belongs to another
            backbone.
    """
    model = backbone.model.float()
    weights = files.read_weights(folder / WEIGHTS)
    try:
        model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be loaded: {error}") from error
    if different := sorted(_untied(model).keys() ^ weights.keys()):
        raise ModelError(f"{folder / WEIGHTS} belongs to another backbone: {different[0]} differs.")
    return model.eval()


def merge(model: "nn.Module") -> "nn.Module":
    """Return the model: nothing stands beside its weights."""
    return model
