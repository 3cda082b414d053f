"""The optimizer: any of torch's by name, or bitsandbytes' 8-bit AdamW, over groups that weigh rightly."""

import ast
import functools
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pydantic import Field, field_validator

from graftlab.config import Section
from graftlab.errors import ConfigError, Fault, missing_extra, unknown, wrong

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Moments = dict[str, dict[str, object]]
"""An optimizer's state by parameter name: tensors and numbers, by the name that it has there."""
EIGHT_BIT = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}
# torch.optim's own names, lower case; a test compares this list with the installed torch.
TORCH = {
    "adadelta": "Adadelta", "adafactor": "Adafactor", "adagrad": "Adagrad", "adam": "Adam",
    "adamax": "Adamax", "adamw": "AdamW", "asgd": "ASGD", "nadam": "NAdam", "radam": "RAdam",
    "rmsprop": "RMSprop", "rprop": "Rprop", "sgd": "SGD",
}  # fmt: skip
# LBFGS wants a closure, Muon takes matrices only, SparseAdam sparse gradients only: not offered.


class Group(TypedDict):
    """Parameters that train alike."""

    params: "list[nn.Parameter]"
    names: list[str]
    rate: float
    """What their learning rate is multiplied with."""
    weight_decay: float


class Config(Section):
    """Which optimizer, and how it decays weights."""

    name: str = "adamw"
    """One of torch.optim's classes in lower case, or `adamw_8bit`, `paged_adamw_8bit` (bitsandbytes)."""
    weight_decay: float = Field(0.0, ge=0)
    """Decay of matrices; biases and norms are never decayed."""
    arguments: dict[str, object] = Field(default_factory=dict)
    """Further arguments of the optimizer's class, such as `betas: [0.9, 0.98]` or `momentum: 0.9`."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in TORCH and name not in EIGHT_BIT:
            raise ValueError(unknown("optimizer", name, [*TORCH, *EIGHT_BIT]))
        return name


def check(config: Config) -> list[Fault]:
    """Return what is wrong, without importing torch."""
    if config.name in EIGHT_BIT and importlib.util.find_spec("bitsandbytes") is None:
        said = missing_extra(f"training.optimizer.name: {config.name}", "bitsandbytes", "quantized")
        return [wrong(("optimizer", "name"), said, kind="not_installed", given=config.name)]
    known = arguments_of(config.name)
    return [
        wrong(
            ("optimizer", "arguments", name),
            f"training.optimizer.arguments: {unknown(f'argument of {config.name}', name, known)}",
            kind="unknown",
            given=name,
            allowed=sorted(known),
        )
        for name in config.arguments
        if known and name not in known
    ]


@functools.cache
def arguments_of(name: str) -> frozenset[str]:
    """Return the arguments of one of torch's optimizers beside those that are set here; none where the class
    is not torch's. Its source is read, not imported: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if name not in TORCH or spec is None or spec.origin is None:
        return frozenset()
    folder = Path(spec.origin).parent / "optim"
    file = next((f for f in (folder / f"{name}.py", folder / f"_{name}.py") if f.is_file()), None)
    if file is None:
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    made = (
        part.args
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == TORCH[name]
        for part in node.body
        if isinstance(part, ast.FunctionDef) and part.name == "__init__"
    )
    found = next(made, None)
    own = [argument.arg for argument in (*found.args, *found.kwonlyargs)] if found else []
    return frozenset(own) - {"self", "params", "lr", "weight_decay"}


def groups(
    parameters: "Mapping[str, nn.Parameter]",
    config: Config,
    rates: Mapping[str, float],
) -> list[Group]:
    """Return parameter groups, one for each pair of (rate multiplier, decay); each holds its `names`.

    A tensor with one axis is a bias or a norm and is not decayed.
    """
    found: dict[tuple[float, float], Group] = {}
    for name, parameter in parameters.items():
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        key = (rates.get(name, 1.0), decay)
        group = found.setdefault(
            key, {"params": [], "names": [], "rate": key[0], "weight_decay": decay}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(found.values())


def replace_groups(optimizer: "torch.optim.Optimizer", param_groups: list[Group]) -> None:
    """Give an optimizer other groups; the state of parameters that are in both stays."""
    kept = {id(parameter) for group in param_groups for parameter in group["params"]}
    for parameter in [p for p in optimizer.state if id(p) not in kept]:
        del optimizer.state[parameter]
    optimizer.param_groups.clear()
    for group in param_groups:
        optimizer.add_param_group(dict(group))


def build(param_groups: list[Group], config: Config) -> "torch.optim.Optimizer":
    """Return the optimizer with a learning rate of zero: the loop sets it before each step.

    Raises:
        ConfigError: the class does not take one of `training.optimizer.arguments`.
    """
    import torch

    if config.name in EIGHT_BIT:
        import bitsandbytes

        make = getattr(bitsandbytes.optim, EIGHT_BIT[config.name])
    else:
        make = getattr(torch.optim, TORCH[config.name])
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in config.arguments.items()}
    try:
        made: torch.optim.Optimizer = make(param_groups, lr=1e-8, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"training.optimizer.arguments {config.arguments} do not fit {make.__name__}: {error}."
        ) from error
    return made


def state(optimizer: "torch.optim.Optimizer") -> Moments:
    """Return the state by parameter name: it outlives another order of the groups."""
    return {
        name: dict(optimizer.state[parameter])
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        if parameter in optimizer.state
    }


def _to_device(parameter: "Tensor", value: "Tensor") -> "Tensor":
    return value.to(parameter.device)


def load_state(
    optimizer: "torch.optim.Optimizer",
    saved: Moments,
    place: "Callable[[Tensor, Tensor], Tensor]" = _to_device,
) -> None:
    """Put back what `state` returned; tensors go to their parameter's `place`, but step counters stay."""
    import torch

    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if name not in saved:
                continue
            optimizer.state[parameter] = {
                key: place(parameter, value)
                if isinstance(value, torch.Tensor) and value.ndim
                else value
                for key, value in saved[name].items()
            }
