"""JELLY's switch inside transformers' `Trainer`."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import has_length

from graftlab.methods.jelly import checks
from graftlab.methods.jelly.switch import Switch


class JellyCallback(TrainerCallback, ExportableState):
    """Switches the JELLY adapter of a Trainer's model from sequential to parallel.

        model = get_peft_model(model, JellyConfig(mode="dynamic", target_modules="all-linear"))
        Trainer(model, args, train_dataset=rows, callbacks=[JellyCallback(drop_ratio=0.3)]).train()

    Mode and switch method are the adapter's; when to switch, and what becomes of the optimizer, is said
    here, by the names and with the defaults of `graftlab.methods.jelly.Config` (`checks.SETTINGS`). Fresh
    numbers come from the Trainer's seed. Without this callback a Trainer leaves the adapter sequential.

    A run that is resumed from a checkpoint goes on as if it had not been stopped: the state of the
    switch is in `trainer_state.json`, the gradients that the next step is compared with are in the
    adapter's file until training ends.

    probe: a batch whose loss is measured before and after the switch.
    log: what scalars are given to, such as `trainer.log`, which also tells trackers. Unless set, they go
    into `trainer.state.log_history` alone, since a callback is not shown its Trainer.
    """

    def __init__(
        self,
        probe: Mapping[str, Tensor] | None = None,
        log: Callable[[dict[str, float]], None] | None = None,
        **settings: object,
    ) -> None:
        checks.refuse_unknown(settings)
        self.probe, self.log, self.settings = probe, log, settings
        self.saved: dict[str, object] | None = None  # what a checkpoint held; set by the Trainer
        self.lost: list[str] = []
        self.switch: Switch | None = None
        self.batches: int | None = None  # micro-batches of an epoch
        self.micro_step = 0  # micro-batches of this step that are done
        self.whole: dict[int, Tensor] = {}  # by parameter: gradients of A before they are clipped
        self.handles: list[RemovableHandle] = []
        self.rates: list[object] = []
        self.scalars: dict[str, float] = {}

    @property
    def facts(self) -> dict[str, object]:
        """Whether, when and with what effect the run switched."""
        if self.switch is None:
            return {"switched": False}
        return {"switched": self.switch.step is not None, **self.switch.facts}

    def state(self) -> dict[str, object]:
        """Return what is to be kept in `trainer_state.json`."""
        attributes = {
            "saved": self.switch.state_dict() if self.switch else None,
            "lost": [name for name in ("probe", "log") if getattr(self, name) is not None],
        }
        return {"args": dict(self.settings), "attributes": attributes}

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Refuse what cannot work when the Trainer is made."""
        model = kwargs["model"]
        assert isinstance(model, nn.Module)
        checks.make_plan(args, model, self.settings)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the switch for a run of this length, or take it up where a checkpoint left it.

        Raises:
            ValueError: model, arguments or checkpoint cannot be switched; the message says what to do.
        """
        model = kwargs["model"]
        adapter, plan = checks.make_plan(args, model, self.settings)
        self._stop_watching()
        loader, accumulation = kwargs["train_dataloader"], args.gradient_accumulation_steps
        self.batches = len(loader) if has_length(loader) else None
        steps = math.ceil(self.batches / accumulation) if self.batches else state.max_steps
        switch = Switch(model, adapter, plan, state.max_steps, steps, _agree, _add)
        self.switch = switch
        if state.global_step > 0:
            lost = [name for name in self.lost if getattr(self, name) is None]
            saved = checks.read_state(state.stateful_callbacks, self, self.settings, lost)
            checks.check_step(switch, saved)
            switch.load_state_dict(saved)
            kept = [m.jelly_gradient for m in switch.sequential.values()]
            switch.previous = [k[adapter] for k in kept if adapter in k] or None
        else:
            self._forget_gradients()
            checks.check_switches(switch, state.max_steps, self.batches)
        checks.check_trained(switch, kwargs["optimizer"])
        self._probe_loss(args)  # a probe without labels is to fail now
        if plan.criterion == "halves" and switch.watching:
            self._watch()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Switch if it is time. The Trainer calls this before a step's first micro-batch."""
        assert self.switch is not None
        self.micro_step = 0
        if self.switch.due(state.global_step):
            self._stop_watching()
            probe = None if self.probe is None else lambda: self._probe_loss(args)
            self._tell(state, control, self.switch(state.global_step, kwargs["optimizer"], probe))

    def on_substep_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Keep the gradients of the first half of the step's micro-batches (criterion `halves`)."""
        assert self.switch is not None
        self.micro_step += 1
        half = self._micro_batches(args, state.global_step + 1) // 2
        if self.handles and self.switch.watching and self.micro_step == half:
            self.switch.keep_first_half()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compare the gradients and decide; lower the learning rate after a switch.

        The Trainer has clipped the gradients here: all by one factor, which the cosine between two steps
        does not see. Halves of one step are compared as they were before.
        """
        switch = self.switch
        assert switch is not None
        if switch.watching:
            parameters = [layer.jelly_A[switch.adapter] for layer in switch.sequential.values()]
            whole = [self.whole.get(id(p), p.new_zeros(p.shape)) for p in parameters]
            self.scalars = switch.observe(whole if self.handles else None)
            for layer, gradient in zip(
                switch.sequential.values(), switch.previous or (), strict=False
            ):
                layer.keep_gradient(switch.adapter, gradient)
        self.whole.clear()
        if (factor := switch.rate_factor(state.global_step + 1)) != 1.0:
            groups = kwargs["optimizer"].param_groups
            self.rates = [group["lr"] for group in groups]
            for group in groups:
                group["lr"] = group["lr"] * factor

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the learning rate back to its schedule."""
        for group, rate in zip(kwargs["optimizer"].param_groups, self.rates, strict=False):
            group["lr"] = rate
        self.rates = []

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Tell the coherence of the gradients when the Trainer logs."""
        if control.should_log and self.scalars:
            self._tell(state, control, self.scalars)
        self.scalars = {}

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Leave nothing of the training in the adapter, and say so if a switch has not come."""
        assert self.switch is not None
        self._stop_watching()
        self._forget_gradients()
        self.switch.warn_if_never()

    def _forget_gradients(self) -> None:
        assert self.switch is not None
        for layer in self.switch.layers.values():
            layer.forget_gradient(self.switch.adapter)

    def _micro_batches(self, args: TrainingArguments, step: int) -> int:
        """Return how many micro-batches a step (from 1) has: fewer in an epoch's last one."""
        usual = args.gradient_accumulation_steps
        if self.batches is None or step % math.ceil(self.batches / usual):
            return usual
        return self.batches % usual or usual

    def _watch(self) -> None:
        def keep(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self.whole[id(parameter)] = parameter.grad.detach().clone()

        assert self.switch is not None
        for layer in self.switch.sequential.values():
            a = layer.jelly_A[self.switch.adapter]
            self.handles.append(a.register_post_accumulate_grad_hook(keep))

    def _stop_watching(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        self.whole.clear()

    def _probe_loss(self, args: TrainingArguments) -> float:
        """Return the probe's loss, without dropout; 0 where there is no probe."""
        import torch

        if self.probe is None:
            return 0.0
        assert self.switch is not None
        model, training = self.switch.model, self.switch.model.training
        with torch.no_grad():
            inputs = {name: value.to(args.device) for name, value in self.probe.items()}
            loss: Any = model.eval()(**inputs).loss
        model.train(training)
        if loss is None:
            raise ValueError("the model returns no loss for the probe: give it labels.")
        return float(loss)

    def _tell(
        self, state: TrainerState, control: TrainerControl, scalars: dict[str, float]
    ) -> None:
        if self.log is None:
            state.log_history.append({**scalars, "epoch": state.epoch, "step": state.global_step})
            return
        wanted = control.should_log
        self.log(dict(scalars))
        control.should_log = wanted  # the Trainer takes what was logged for its own line


def _agree(decision: bool) -> bool:
    """Return the main process's decision."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return decision
    decisions = [decision]
    dist.broadcast_object_list(decisions, src=0)
    return decisions[0]


def _add(gradients: Sequence[Tensor]) -> None:
    """Add up each process's gradients, in place."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        for gradient in gradients:
            dist.all_reduce(gradient)
