"""The switch in graftlab's own loop."""

from typing import TYPE_CHECKING, Any, cast

from graftlab.contracts import Hook, Training
from graftlab.errors import ConfigError
from graftlab.methods.jelly.plan import Plan
from graftlab.methods.jelly.switch import State, Switch

if TYPE_CHECKING:
    from peft import PeftModel


class SwitchHook(Hook):
    """Feeds the switch with gradients, and switches between two steps."""

    switch: Switch
    training: Training

    def __init__(self, model: "PeftModel", adapter: str, plan: Plan) -> None:
        self.model, self.adapter, self.plan = model, adapter, plan
        self._ended: dict[str, object] | None = None  # the facts of the whole run

    def on_train_start(self, training: Training) -> None:
        """Make the switch for a run of this length.

        Raises:
            ConfigError: it would come after the run's end, or there is one micro-batch and no halves.
        """
        self.training = training
        self.switch = Switch(
            self.model,
            self.adapter,
            self.plan,
            training.num_steps,
            training.steps_per_epoch,
            training.agree,
            training.add,
        )
        if self.switch.at is not None and self.switch.at >= training.num_steps:
            raise ConfigError(
                f"method.mode seq2par switches after step {self.switch.at}, but the run has "
                f"{training.num_steps} steps ({training.steps_per_epoch} an epoch). Lower "
                "method.switch_epoch or method.switch_step, or train longer."
            )
        if self.plan.criterion == "halves" and training.micro_batches(1) < 2:
            raise ConfigError(
                "method.criterion halves compares two halves of a batch, but a batch goes through in "
                "one. Set training.micro_batch_size to half of training.batch_size, or less."
            )

    def on_step_start(self, step: int) -> None:
        """Switch if it is time. A step that is replayed for want of memory finds it done."""
        if self.switch.due(step - 1):
            facts = self.switch(step - 1, self.training.optimizer, self.training.probe)
            self.training.tell(facts)
            self.training.parameters_changed()

    def after_backward(self, step: int, micro_step: int) -> None:
        """Keep the gradients of the first half of the step's micro-batches (criterion `halves`)."""
        if self.plan.criterion == "halves" and self.switch.watching:
            half = self.training.micro_batches(step) // 2
            if half and micro_step == half - 1:
                self.switch.keep_first_half()

    def before_optimizer_step(self, step: int) -> dict[str, float]:
        """Compare the gradients, unscaled and not clipped, and decide."""
        return self.switch.observe()

    def rate_factor(self, step: int) -> float:
        """Return the ramp after a switch with `rewarmup_steps`."""
        return self.switch.rate_factor(step)

    def facts(self) -> dict[str, object]:
        """Return whether, when and with what effect the run switched, be its best checkpoint before that."""
        return self._ended or {"switched": self.switch.step is not None, **self.switch.facts}

    def on_train_end(self) -> None:
        """Say so if a planned switch has not come."""
        self.switch.warn_if_never()
        self._ended = self.facts()

    def state_dict(self) -> dict[str, object]:
        """Return the state of the switch, with the gradients that the next step is compared with."""
        return {**self.switch.state_dict(), "previous": self.switch.previous}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.switch.previous = state["previous"]
        self.switch.load_state_dict(cast("State", state), self.training.optimizer)
        self.training.parameters_changed()
