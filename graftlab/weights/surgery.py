"""Find a model's linear layers, freeze it, and keep what trains in float32."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graftlab.contracts import Note
from graftlab.errors import ConfigError, Place, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_RANK = 2**16  # no linear layer of a pretrained model is as wide
ALL_LINEAR = "all-linear"
WORTH_SAYING = 0.001  # of a model's weights


def is_conv1d(module: "nn.Module") -> bool:
    """Return whether this is transformers' Conv1D: a linear layer whose weight is stored (I, O)."""
    return type(module).__name__ == "Conv1D"


def linear_layers(model: "nn.Module", outside: Sequence[str] = ()) -> "dict[str, nn.Module]":
    """Return the linear layers by name, without those in the modules named by `outside`.

    Also without the output projection of torch's own attention, which is used but never called.
    """
    from torch import nn
    from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

    return {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or is_conv1d(module))
        and not isinstance(module, NonDynamicallyQuantizableLinear)
        and not inside(name, outside)
    }


def inside(name: str, modules: Sequence[str]) -> bool:
    """Return whether a module or parameter is one of `modules` or stands in one of them."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def output_layers(model: "nn.Module", head: Sequence[str] = ()) -> tuple[str, ...]:
    """Return `head` and the name of the layer that scores the vocabulary, if there is one."""
    getter = getattr(model, "get_output_embeddings", None)
    scorer = getter() if getter is not None else None
    names = [
        name for name, module in model.named_modules() if scorer is not None and module is scorer
    ]
    return (*head, *names)


def match_targets(
    model: "nn.Module",
    targets: Sequence[str] | str,
    head: Sequence[str] = (),
    section: str = "method",
) -> list[str]:
    """Return the full names of the linear layers that `targets` mean, sorted; never one of the head.

    A sequence holds last names or suffixes (`query`, `attention.self.query`); a string is a regular
    expression for the full name, or `all-linear`. They stand in `section` of the run file.

    Raises:
        ConfigError: nothing matches, one of the names matches nothing, or the regex is not one.
    """
    layers = list(linear_layers(model, output_layers(model, head)))
    place = Place(key=(*section.split("."), "targets"))
    if targets == ALL_LINEAR:
        matched = layers
    elif isinstance(targets, str):
        try:
            matched = [name for name in layers if re.fullmatch(targets, name)]
        except re.error as error:
            raise ConfigError(
                f"{section}.targets {targets!r} is not a regular expression: {error}.",
                kind="not_allowed",
                place=place,
            ) from error
    else:
        lost = [target for target in targets if not any(_ends(name, target) for name in layers)]
        if lost:
            said = f"{section}.targets {_no_match(model, lost, layers)}"
            raise ConfigError(said, kind="unknown", place=place)
        matched = [name for name in layers if any(_ends(name, target) for target in targets)]
    if not matched:
        said = f"{section}.targets {_no_match(model, targets, layers)}"
        raise ConfigError(said, kind="unknown", place=place)
    return sorted(matched)


def left_out(model: "nn.Module", outside: Sequence[str] = ()) -> "dict[str, int]":
    """Return the weights that `all-linear` does not reach, with their sizes; layers' numbers are `*`.

    They are matrices that no linear layer holds, such as experts that are fused into one tensor. Embeddings,
    convolutions, tables of positions and what `outside` holds are linear layers in no model.
    """
    from torch import nn

    others = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, others) or is_conv1d(module) or inside(name, outside):
            continue
        for own, parameter in module.named_parameters(recurse=False):
            matrix = parameter.dim() in (2, 3) and min(parameter.shape) > 1
            if matrix and not re.search(r"bias|embed|token|A_log", own):
                key = re.sub(r"\b\d+\b", "*", f"{name}.{own}")
                found[key] = found.get(key, 0) + parameter.numel()
    return found


def unreached(model: "nn.Module", targets: object, outside: Sequence[str] = ()) -> Note | None:
    """Return the note that names what `all-linear` leaves out of a model; None where that is nothing."""
    found = left_out(model, outside) if targets == ALL_LINEAR else {}
    share = sum(found.values()) / max(1, sum(p.numel() for p in model.parameters()))
    if share < WORTH_SAYING:
        return None
    return Note.of("linear_left_out", weights=", ".join(found), share=share)


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _no_match(model: "nn.Module", targets: Sequence[str] | str, layers: Sequence[str]) -> str:
    known = sorted({name.rpartition(".")[2] for name in layers})
    wanted = [targets] if isinstance(targets, str) else targets
    close = [name for target in wanted if (name := nearest(target.rpartition(".")[2], known))]
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"{targets if isinstance(targets, str) else list(targets)} match no linear layer "
        f"of {type(model).__name__}.{hint} Its linear layers are named: {', '.join(known) or 'none'}."
    )


def freeze(model: "nn.Module") -> None:
    """Stop every parameter from training; batch norms keep the statistics that they have."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_keep_statistics)


def _keep_statistics(module: "nn.Module", inputs: object) -> None:
    module.training = False  # model.train() sets it again before each epoch


def trainable(model: "nn.Module") -> "dict[str, nn.Parameter]":
    """Return the parameters that train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def train_in_float32(model: "nn.Module") -> None:
    """Turn every trainable parameter to float32, and let its layer take inputs of lower precision."""
    import torch

    for module in model.modules():
        low = [
            p
            for p in module.parameters(recurse=False)
            if p.requires_grad and p.is_floating_point() and p.dtype != torch.float32
        ]
        for parameter in low:
            parameter.data = parameter.data.float()
        if low:
            module.register_forward_pre_hook(_widen_inputs)


def _widen_inputs(module: "nn.Module", inputs: tuple[object, ...]) -> tuple[object, ...]:
    import torch

    if torch.is_autocast_enabled():
        return inputs
    return tuple(
        x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs
    )


def whole(tensor: "Tensor") -> "Tensor":
    """Return a tensor whole, of which this process may hold a shard: then all have to ask."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def parent_and_name(model: "nn.Module", name: str) -> "tuple[nn.Module, str]":
    """Return the module that holds `name`, and the attribute under which it does."""
    parent, _, attribute = name.rpartition(".")
    return model.get_submodule(parent), attribute
