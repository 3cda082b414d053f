"""Linear probe: only the new head trains, on the features of the frozen backbone.

Alain & Bengio, 2016, arXiv 1610.01644. What the other methods have to beat.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from graftlab.config import Section
from graftlab.contracts import Attached, Backbone, Promises, Setting
from graftlab.errors import ConfigError, ModelError
from graftlab.rundir import files
from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor, nn

PROMISES = Promises(
    quantized=True,
    usual_rates=(1e-4, 1e-1),  # one layer on frozen features is convex: larger steps do no harm
    not_problems={"tokens": "a model that puts out tokens has no new head"},
)

WEIGHTS = "head.safetensors"
START = "head_at_start"  # prefix of the buffers that keep the head as it was before training


class Config(Section):
    """A linear probe has no settings of its own."""


def attach(backbone: Backbone, config: Config, setting: Setting) -> Attached:
    """Return the backbone with only its head trainable.

    Raises:
        ConfigError: the task needs no new head.
    """
    return _attach(backbone)


def _attach(backbone: Backbone) -> Attached:
    model = backbone.model
    if not backbone.head:
        raise ConfigError(
            "method head trains the new head, but this task needs none: the backbone puts out tokens. "
            "Choose another method, or a task of classes."
        )
    surgery.freeze(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(surgery.inside(name, backbone.head))
    surgery.train_in_float32(model)
    kept = tuple(_buffer(name) for name in surgery.trainable(model))
    for buffer, parameter in zip(kept, surgery.trainable(model).values(), strict=True):
        model.register_buffer(buffer, parameter.detach().clone())
    return Attached(model, computed=kept)


def _buffer(name: str) -> str:
    return f"{START}_{name.replace('.', '-')}"


def save(model: "nn.Module", folder: Path) -> None:
    """Write the head's weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: p.detach().cpu().contiguous() for n, p in surgery.trainable(model).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def load(backbone: Backbone, config: Config, folder: Path) -> "nn.Module":
    """Return the backbone with the saved head.

    Raises:
        ModelError: the file is missing or damaged, has a number that is not finite, or belongs to another
            backbone.
    """
    model = _attach(backbone).model
    weights = files.read_weights(folder / WEIGHTS)
    own = surgery.trainable(model)
    if {n: p.shape for n, p in own.items()} != {n: w.shape for n, w in weights.items()}:
        raise ModelError(
            f"the head in {folder} has other names or shapes than this backbone's head."
        )
    _put(own, weights)
    return model.eval()


def _put(parameters: "dict[str, nn.Parameter]", values: "dict[str, Tensor]") -> None:
    for name, parameter in parameters.items():
        parameter.data.copy_(values[name])


@contextlib.contextmanager
def off(model: "nn.Module") -> Iterator[None]:
    """Put the head back as it was before training, for the time of a `with` block."""
    parameters = surgery.trainable(model)
    trained = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    _put(parameters, {name: model.get_buffer(_buffer(name)) for name in parameters})
    try:
        yield
    finally:
        _put(parameters, trained)


def merge(model: "nn.Module") -> "nn.Module":
    """Return the model: nothing stands beside its weights."""
    for name in [name for name, _ in model.named_buffers() if name.startswith(START)]:
        delattr(model, name)
    return model
