"""When a model's sequential adapters switch, and what happens to them and to the optimizer then.

The same for graftlab's loop (`hook`) and for transformers' Trainer (`callback`).
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict

from graftlab.methods.jelly.plan import Plan
from graftlab.seeds import mix

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from graftlab.methods.jelly.forms import Change
    from graftlab.methods.jelly.layer import JellyLinear

log = logging.getLogger("graftlab")


class State(TypedDict):
    """What is kept of a switch over a resume."""

    step: int | None
    wanted: bool
    trigger: dict[str, object] | None
    facts: dict[str, float]


class Switch:
    """Watches the gradients, decides, and switches all sequential layers of a model at once."""

    def __init__(
        self,
        model: "nn.Module",
        adapter: str,
        plan: Plan,
        num_steps: int,
        steps_per_epoch: int,
        agree: Callable[[bool], bool] = bool,
        add: "Callable[[Sequence[Tensor]], None] | None" = None,
    ) -> None:
        from graftlab.methods.jelly.tuner import layers

        self.model, self.adapter, self.plan = model, adapter, plan
        self.agree, self.add = agree, add
        self.layers = layers(model)
        self.at = plan.fixed_step(steps_per_epoch)
        self.trigger = plan.trigger(num_steps)
        self.previous: list[Tensor] | None = (
            None  # gradients of A in the last step, or in half of this
        )
        self.wanted = False  # dynamic: at the next step's start
        self.step: int | None = None  # after how many steps it switched
        self.facts: dict[str, float] = {}

    @property
    def sequential(self) -> "dict[str, JellyLinear]":
        """The layers that are sequential now."""
        return {
            name: layer
            for name, layer in self.layers.items()
            if self.adapter in layer.forms and layer.forms[self.adapter].sequential
        }

    @property
    def watching(self) -> bool:
        """Whether gradients are still compared."""
        return self.trigger is not None and self.step is None and not self.wanted

    def gradients(self) -> "list[Tensor]":
        """Return a copy of each sequential A's gradient; zeros where there is none."""
        import torch

        parameters = [layer.jelly_A[self.adapter] for layer in self.sequential.values()]
        return [
            torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in parameters
        ]

    def keep_first_half(self) -> None:
        """Keep this process's gradients of the first half of a step's examples (criterion `halves`)."""
        self.previous = self.gradients()

    def observe(self, now: "list[Tensor] | None" = None) -> dict[str, float]:
        """Compare this step's gradients of A, all there and not clipped, and decide; return scalars.

        `now` stands for them where `.grad` has been clipped already: this process's share.
        """
        import torch

        from graftlab.methods.jelly.coherence import cosine

        if not self.watching:
            return {}
        assert self.trigger is not None
        if now is None:
            now = self.gradients()
        elif self.add:
            self.add(now)
        before = self.previous
        if self.plan.criterion == "halves":
            self.previous = None
            # zeros: a short batch has gone through in one, perhaps on this process only
            before = before or [torch.zeros_like(gradient) for gradient in now]
            if self.add:
                self.add(before)
            now = [whole - half for whole, half in zip(now, before, strict=True)]
        else:
            self.previous = now if _is_direction(now) else before
        coherence = None if before is None else cosine(now, before)
        self.wanted = self.agree(self.trigger.update(coherence))
        found = {"coherence": coherence, "coherence_average": self.trigger.average}
        return {f"jelly/{name}": value for name, value in found.items() if value is not None}

    def due(self, steps_done: int) -> bool:
        """Return whether to switch now, before another step."""
        if self.step is not None:
            return False
        return self.wanted or (self.at is not None and steps_done >= self.at)

    def __call__(
        self,
        steps_done: int,
        optimizer: "torch.optim.Optimizer",
        probe: Callable[[], float] | None = None,
    ) -> dict[str, float]:
        """Switch every sequential layer, put the optimizer right, and return what it did.

        `probe` returns a loss on fixed examples; it is asked before and after.
        """
        from graftlab.methods.jelly.peft_config import config_of

        loss = probe() if probe else None
        changes = {name: self._switch_layer(name, layer, steps_done, optimizer)
                   for name, layer in self.sequential.items()}  # fmt: skip
        self.step, self.wanted, self.previous = steps_done, False, None
        config_of(self.model, self.adapter).switch_step = steps_done
        self.facts = {"switch_step": float(steps_done), **_summary(list(changes.values()))}
        if probe and loss is not None:
            self.facts |= {"probe_loss_before": loss, "probe_loss_after": probe()}
        log.info(
            "JELLY switched %d layers to parallel by %s after step %d: %s",
            len(changes), self.plan.switch_method, steps_done,
            ", ".join(f"{name} {value:.4g}" for name, value in self.facts.items()),
        )  # fmt: skip
        return {f"jelly/{name}": value for name, value in self.facts.items()}

    def _switch_layer(
        self, name: str, layer: "JellyLinear", step: int, optimizer: "torch.optim.Optimizer"
    ) -> "Change":
        import torch

        from graftlab.methods.jelly import conversion

        a, b = layer.jelly_A[self.adapter], layer.jelly_B[self.adapter]
        generator = torch.Generator().manual_seed(mix(self.plan.seed, "switch", name))
        change = conversion.switch(layer, self.adapter, self.plan.switch_method, step, generator)
        replace(optimizer, a, layer.jelly_A[self.adapter])
        if self.plan.reset_optimizer:
            # exact leaves B and its gradient as they were, so that B's moments stay right
            for parameter in [a] if self.plan.switch_method == "exact" else [a, b]:
                optimizer.state.pop(parameter, None)
        return change

    def rate_factor(self, step: int) -> float:
        """Return by what the learning rate of this step (from 1) is multiplied: the ramp after a switch."""
        if self.step is None or step - self.step > self.plan.rewarmup_steps:
            return 1.0
        return (step - self.step) / (self.plan.rewarmup_steps + 1)

    def state_dict(self) -> State:
        """Return all but the previous gradients, as JSON."""
        return {
            "step": self.step,
            "wanted": self.wanted,
            "trigger": self.trigger.state_dict() if self.trigger else None,
            "facts": dict(self.facts),
        }

    def load_state_dict(
        self, state: State, optimizer: "torch.optim.Optimizer | None" = None
    ) -> None:
        """Take back what `state_dict` returned, and give the layers the form that they had."""
        from graftlab.methods.jelly.forms import Form
        from graftlab.methods.jelly.peft_config import config_of

        moved = self.sequential if state["step"] is not None else self._switched()
        form = (
            Form(sequential=True)
            if state["step"] is None
            else Form(False, state["step"], self.plan.switch_method)
        )
        for layer in moved.values():
            a = layer.jelly_A[self.adapter]
            layer.take_form(self.adapter, form)
            if optimizer is not None:
                replace(optimizer, a, layer.jelly_A[self.adapter])
        config_of(self.model, self.adapter).switch_step = state["step"]
        self.step, self.wanted = state["step"], state["wanted"]
        self.facts = dict(state["facts"])
        if self.trigger and state["trigger"]:
            self.trigger.load_state_dict(state["trigger"])

    def _switched(self) -> "dict[str, JellyLinear]":
        return {
            name: layer
            for name, layer in self.layers.items()
            if layer.forms[self.adapter].switch_step is not None
        }

    def warn_if_never(self) -> None:
        """Say so if a switch was planned and has not come."""
        if self.step is None and self.plan.mode in ("seq2par", "dynamic"):
            log.warning(
                "JELLY never switched: the adapter is sequential to the end. Let method.latest (dynamic) "
                "or method.switch_epoch (seq2par) be below the length of the run."
            )


def _is_direction(gradients: "Sequence[Tensor]") -> bool:
    """Return whether a later gradient can be compared with these: not zero, and finite."""
    import torch

    if not gradients:
        return False
    device = gradients[0].device
    size = torch.stack([g.double().norm().to(device) for g in gradients]).norm().item()
    return 0 < size < math.inf


def replace(optimizer: "torch.optim.Optimizer", old: "Tensor", new: "Tensor") -> None:
    """Let the optimizer train `new` in the place of `old`, whose state does not fit it."""
    if old is new:
        return
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    optimizer.state.pop(old, None)


def _summary(changes: "Sequence[Change]") -> dict[str, float]:
    """Return means over the layers, and the largest ratio of B's norms."""
    count = max(1, len(changes))
    return {
        "switched_layers": float(len(changes)),
        "relative_change": sum(c.relative_change for c in changes) / count,
        "effective_rank_before": sum(c.effective_rank[0] for c in changes) / count,
        "effective_rank_after": sum(c.effective_rank[1] for c in changes) / count,
        "largest_norm_ratio": max((c.norm_ratio for c in changes), default=1.0),
    }
