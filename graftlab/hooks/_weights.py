"""The weights that train, in groups that a reader of curves knows."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from graftlab.weights import surgery

if TYPE_CHECKING:
    from torch import Tensor, nn

Grouping = Literal["all", "block", "kind", "tensor"]
WRAPPED = re.compile(r"base_model\.model\.|\.modules_to_save|\.default(?=\.|$)|\.base_layer")
"""What PEFT puts into the names of a model's weights."""
BLOCK = re.compile(r"(.*?\.\d+)\.")


def plain(name: str) -> str:
    """Return a weight's name without what PEFT has put into it."""
    return WRAPPED.sub("", name)


def _block(name: str) -> str:
    """Return the transformer block that a weight stands in; of one in none, the part of the model."""
    found = BLOCK.match(name)
    return found[1] if found else ".".join(name.split(".")[:-1][:2]) or name


GROUPS: dict[Grouping, Callable[[str], str]] = {
    "all": lambda _: "all",
    "block": _block,
    "kind": lambda name: re.sub(r"\.\d+(?=\.)", ".*", name),
    "tensor": lambda name: name,
}


def norms(tensors: "Mapping[str, Tensor]", by: Grouping) -> dict[str, float]:
    """Return the Euclidean norm of each group of tensors, by the group's name."""
    import torch

    groups: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(GROUPS[by](plain(name)), []).append(tensor)

    def norm(group: "Iterable[Tensor]") -> float:
        each = [torch.linalg.vector_norm(tensor.detach(), dtype=torch.float32) for tensor in group]
        return float(torch.linalg.vector_norm(torch.stack(each)))

    return {name: norm(group) for name, group in groups.items()}


class Start:
    """What trained weights were when they began to train, by name."""

    def __init__(self, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """`wanted` is asked with a weight's plain name."""
        self.wanted = wanted
        self.tensors: dict[str, Tensor] = {}

    def meet(self, model: "nn.Module") -> None:
        """Take in what trains now: a method may have made other weights trainable.

        One that it puts into the place of another shape (JELLY's switch) begins there.
        """
        for name, weight in surgery.trainable(model).items():
            start = self.tensors.get(name)
            known = start is not None and start.shape == weight.shape
            if not known and self.wanted(plain(name)):
                self.tensors[name] = weight.detach().clone()

    def state_dict(self) -> dict[str, object]:
        return dict(self.tensors)

    def load_state_dict(self, state: "Mapping[str, Tensor]", model: "nn.Module") -> None:
        places = surgery.trainable(model)
        self.tensors = {
            name: tensor.to(places[name].device) if name in places else tensor
            for name, tensor in state.items()
        }
