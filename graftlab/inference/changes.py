"""What a finished run has changed of its backbone's weights, for analyses to ask about."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from graftlab.adapters import PREFIX
from graftlab.contracts import Change
from graftlab.errors import ConfigError
from graftlab.inference.adapted import Adapted
from graftlab.runs import material
from graftlab.weights import quantized, surgery

if TYPE_CHECKING:
    from torch import Tensor, nn


class RunSubject:
    """The subject of an analysis: one finished run, its model as training left it."""

    def __init__(self, adapted: Adapted) -> None:
        self.adapted = adapted
        self._untouched: dict[str, Tensor] | None = None

    @property
    def name(self) -> str:
        return self.adapted.file.name

    def changes(self) -> Iterator[Change]:
        """Yield what the method says of each weight; of a plainly tuned model, its difference from before.

        Raises:
            ConfigError: the method does not say how it changes the backbone's weights.
        """
        method, model = self.adapted.file.method, self.adapted.model
        if method.module.deltas is not None:
            for name, change in method.module.deltas(model):
                left, right = change if isinstance(change, tuple) else (change, None)
                yield Change(name, left.detach(), None if right is None else right.detach())
            return
        tuned = {name: p for name, p in model.named_parameters() if self._counts(name)}
        before = self._before()
        moved = [n for n in before if n in tuned and not tuned[n].equal(before[n])]
        if not moved:
            raise ConfigError(
                f"{self.adapted.run.path}: the method {method.name} does not change the backbone's own "
                f"weights, or does not say how. Choose a run of full, lora or another that adapts them."
            )
        for name in moved:
            yield Change(name, tuned[name].detach() - before[name], None)

    def base(self, name: str) -> "Tensor | None":
        """Return a weight as it was before the run; of a quantized layer, what its few bits stand for."""
        module = self.adapted.file.method.module
        if module.deltas is None:
            return self._before().get(name)
        with module.off(self.adapted.model):  # PiSSA has the untouched weights back here
            return _weight(self.adapted.model, name)

    def _counts(self, name: str) -> bool:
        return not surgery.inside(name, self.adapted.backbone.head)

    def _before(self) -> "dict[str, Tensor]":
        """Return the weights of the backbone as it is loaded, without its new head."""
        if self._untouched is None:
            loaded = material.backbone(self.adapted.file, self.adapted.problem)
            device = next(self.adapted.model.parameters()).device
            self._untouched = {
                name: parameter.detach().to(device)
                for name, parameter in loaded.model.named_parameters()
                if self._counts(name)
            }
        return self._untouched


def _weight(model: "nn.Module", name: str) -> "Tensor | None":
    """Return a frozen weight below an adapter by its plain name; None where there is none."""
    place, _, own = name.rpartition(".")
    try:
        module: nn.Module = model.get_submodule(f"{PREFIX}{place}")
    except AttributeError:
        return None
    module = getattr(module, "base_layer", module)
    if own == "weight":
        return quantized.weight(module)
    found: Tensor | None = getattr(module, own, None)
    return None if found is None else found.detach()
