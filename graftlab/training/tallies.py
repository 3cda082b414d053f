"""What each task of a mixture adds to a step: its loss, and its part of the gradient."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from graftlab.contracts import Task, as_mixture

if TYPE_CHECKING:
    from torch import Tensor, nn

Sums = dict[str, tuple[float, int]]
"""By task: the loss summed, and what it is divided by."""


def names_of(task: Task) -> tuple[str, ...]:
    """Return the names of the tasks that a task is made of; nothing for a task that is one."""
    mixture = as_mixture(task)
    return mixture.names if mixture else ()


class Tally:
    """Counts along one step's micro-batches, which come task by task.

    The gradient of a task is what its micro-batches have added to that of all before it: the difference is
    taken of a copy, so that looking changes no bit of the training.
    """

    def __init__(
        self,
        names: Sequence[str],
        parts: Sequence[int],
        watched: "Mapping[str, nn.Parameter]",
        keep: bool = False,
    ) -> None:
        """`parts` has the task's number of each micro-batch; `watched` are the parameters whose gradient
        is measured, by name: none if it is not. With `keep` each task's gradient is kept, a copy a task."""
        self._names, self._parts, self._watched, self._keep = names, parts, watched, keep
        self._losses: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._before: dict[str, Tensor] = {}
        self._norms: dict[str, Tensor] = {}
        self._kept: dict[str, dict[str, Tensor]] = {}

    def add(self, number: int, loss: "Tensor", count: int) -> None:
        """Take in micro-batch `number` after its backward pass; `loss` is summed over it."""
        if not self._parts:
            return
        part = self._parts[number]
        name = self._names[part]
        self._losses[name] = self._losses[name] + loss if name in self._losses else loss.clone()
        self._counts[name] = self._counts.get(name, 0) + count
        last = number == len(self._parts) - 1
        if self._watched and (last or self._parts[number + 1] != part):
            self._measure(name, last)

    def _measure(self, name: str, last: bool) -> None:
        import torch

        norms = []
        kept = self._kept.setdefault(name, {}) if self._keep else None
        for own, parameter in self._watched.items():
            if parameter.grad is None:
                continue
            gradient, before = parameter.grad.detach(), self._before.pop(own, None)
            added = gradient if before is None else gradient - before
            norms.append(torch.linalg.vector_norm(added.float()))
            if not last:
                self._before[own] = gradient.clone()
            if kept is not None:  # a difference is a tensor of its own, what is there grows on
                kept[own] = gradient.clone() if before is None else added
        if norms:
            self._norms[name] = torch.linalg.vector_norm(torch.stack(norms))

    def sums(self) -> Sums:
        """Return the loss of each task that the step has seen, summed, and its count."""
        return {name: (loss.item(), self._counts[name]) for name, loss in self._losses.items()}

    def gradients(
        self, scale: float = 1.0, add: "Callable[[Sequence[Tensor]], None] | None" = None
    ) -> "dict[str, dict[str, Tensor]]":
        """Return each task's part of the gradient by parameter, where it is kept; `scale` as for `norms`.

        `add` replaces tensors by their sums over all processes, of which one may have seen nothing of a task.
        """
        import torch

        found: dict[str, dict[str, Tensor]] = {}
        for task in self._names if self._keep else ():
            own = self._kept.get(task, {})
            found[task] = {
                name: own[name] if name in own else torch.zeros_like(parameter.detach())
                for name, parameter in self._watched.items()
            }
            if add:
                add(list(found[task].values()))
            for tensor in found[task].values():
                tensor /= scale
        return found

    def norms(self, scale: float = 1.0) -> dict[str, float]:
        """Return the norm of each task's part of the gradient, which stands multiplied by `scale`."""
        found = {name: norm.item() / scale for name, norm in self._norms.items()}
        return {
            f"{name}/gradient_norm": norm for name, norm in found.items() if math.isfinite(norm)
        }


def add(sums: dict[str, list[float]], new: Mapping[str, Sequence[float]]) -> None:
    """Add each sum and its count to those of the same name."""
    for name, (value, count) in new.items():
        before = sums.get(name, (0.0, 0))
        sums[name] = [before[0] + value, before[1] + count]


def joined(several: Sequence[Sums]) -> Sums:
    """Return the sums of all processes together."""
    found: Sums = {}
    for sums in several:
        for name, (loss, count) in sums.items():
            before = found.get(name, (0.0, 0))
            found[name] = (before[0] + loss, before[1] + count)
    return found


def means(sums: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    """Return each mean under its name."""
    return {name: value / count for name, (value, count) in sums.items() if count}
