"""What JellyCallback cannot switch inside transformers' `Trainer`, refused before the first step."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from peft import PeftConfig, PeftModel, PeftType
from transformers import TrainingArguments

from graftlab.errors import unknown
from graftlab.methods.jelly import DYNAMIC, Config
from graftlab.methods.jelly.peft_config import JellyConfig, config_of
from graftlab.methods.jelly.plan import Plan
from graftlab.methods.jelly.switch import State, Switch
from graftlab.methods.jelly.tuner import layers

if TYPE_CHECKING:
    import torch
    from torch import nn

SETTINGS = ("switch_epoch", "switch_step", "reset_optimizer", "rewarmup_steps", *DYNAMIC)
"""What `JellyCallback` may be told: fields of the run file's `method` section."""


def refuse_unknown(settings: Mapping[str, object]) -> None:
    """Refuse settings that are not `JellyCallback`'s."""
    for name in settings:
        if name in ("mode", "switch_method"):
            raise ValueError(f"{name} is the adapter's: JellyConfig({name}=...).")
        if name not in SETTINGS:
            raise ValueError(unknown("setting of JellyCallback", name, SETTINGS))


def make_plan(
    args: TrainingArguments, model: "nn.Module", settings: Mapping[str, object]
) -> tuple[str, Plan]:
    """Return the adapter that is to switch, and the plan for it.

    Raises:
        ValueError: model and arguments do not allow it.
    """
    _whole_weights(args, model)
    name, config = _adapter(model)
    if config.mode not in ("seq2par", "dynamic"):
        raise ValueError(
            f"JellyCallback has nothing to do in mode {config.mode}: "
            "JellyConfig(mode='dynamic') or 'seq2par', or train without it."
        )
    fields: dict[str, object] = {"mode": config.mode, "switch_method": config.switch_method}
    section = Config(**fields, **settings)
    if section.starts_parallel:
        raise ValueError(
            "a switch before the first step is LoRA from the start: "
            "JellyConfig(mode='parallel'), without JellyCallback."
        )
    if section.criterion == "halves" and args.gradient_accumulation_steps < 2:
        raise ValueError(
            "criterion halves compares two halves of a step's examples, but they go through in one. "
            "Set gradient_accumulation_steps to 2 or more."
        )
    _layers_allow(args, model, name, config)
    return name, section.plan(args.seed)


def _whole_weights(args: TrainingArguments, model: "nn.Module") -> None:
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType
    from torch.distributed.tensor import DTensor

    shards = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
    if (
        args.fsdp
        or args.deepspeed
        or AcceleratorState().distributed_type in shards
        or any(isinstance(parameter.data, DTensor) for parameter in model.parameters())
    ):
        raise ValueError(
            "JELLY's switch needs whole weights, which FSDP, DeepSpeed and tensor parallelism divide "
            "among processes. Train with plain DDP or in one process."
        )


def _adapter(model: "nn.Module") -> tuple[str, JellyConfig]:
    if not isinstance(model, PeftModel):
        raise ValueError(
            f"JellyCallback switches a PeftModel, but the Trainer's model is a {type(model).__name__}. "
            "Give the Trainer get_peft_model(model, JellyConfig(...))."
        )
    active = list(model.active_adapters)
    config: object = model.peft_config[active[0]]
    if len(active) != 1 or not isinstance(config, JellyConfig):
        kinds = ", ".join(f"{name} ({_kind(model.peft_config[name])})" for name in active)
        raise ValueError(f"JellyCallback switches one active JELLY adapter; active here: {kinds}.")
    return active[0], config


def _kind(config: PeftConfig) -> str:
    kind = config.peft_type
    return kind.value if isinstance(kind, PeftType) else str(kind)


def _layers_allow(
    args: TrainingArguments, model: "nn.Module", adapter: str, config: JellyConfig
) -> None:
    found = {name: m.forms[adapter] for name, m in layers(model).items() if adapter in m.forms}
    wide = [name for name, form in found.items()
            if form.sequential and not model.get_submodule(name).is_square]  # fmt: skip
    if wide and config.switch_method == "none":
        raise ValueError(
            f"switch_method none keeps A as it is, but {wide[0]} is not square. Choose another one, or "
            "JellyConfig(nonsquare='parallel')."
        )
    if wide and args.world_size > 1:
        raise ValueError(
            f"{wide[0]} is not square: its A becomes another parameter at the switch, which the Trainer's "
            "wrapping for several processes does not notice. JellyConfig(nonsquare='parallel'), or train "
            "in graftlab's own loop."
        )


def check_switches(switch: Switch, num_steps: int, batches: int | None) -> None:
    """Refuse a run in which nothing is to be switched, or not in time."""
    if not switch.sequential:
        step = config_of(switch.model, switch.adapter).switch_step
        since = "" if step is None else f": it switched after step {step} of an earlier run"
        raise ValueError(
            f"the adapter {switch.adapter!r} has no sequential layer{since}. Train it without JellyCallback."
        )
    if batches is None and switch.at is not None and switch.plan.switch_step is None:
        raise ValueError(
            "the training data has no length, so that nobody knows when an epoch is over. "
            "Set JellyCallback(switch_step=...)."
        )
    if switch.at is not None and switch.at >= num_steps:
        raise ValueError(
            f"the switch would come after step {switch.at}, but the run has {num_steps} steps. Lower "
            "switch_epoch or switch_step, or train longer."
        )


def check_trained(switch: Switch, optimizer: "torch.optim.Optimizer") -> None:
    """Refuse an optimizer that trains other parameters than the adapter's."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, layer in switch.layers.items():
        if switch.adapter in layer.jelly_A and id(layer.jelly_A[switch.adapter]) not in held:
            raise ValueError(
                f"the optimizer does not train jelly_A of {name}: it was made for other parameters. Let "
                "the Trainer make it, above all where a run is resumed after its switch."
            )


def read_state(
    stored: object, callback: object, settings: Mapping[str, object], lost: Sequence[str]
) -> State:
    """Return the switch's state of the run that is resumed.

    Raises:
        ValueError: the checkpoint has none, or was written with other settings.
    """
    found = stored.get(type(callback).__name__) if isinstance(stored, dict) else None
    if not isinstance(found, dict) or found["attributes"]["saved"] is None:
        raise ValueError(
            "the checkpoint was not written by a run with a JellyCallback, so that nobody knows when it "
            "would have switched. Begin anew, or go on from its adapter in a run of its own: "
            "PeftModel.from_pretrained(model, checkpoint, is_trainable=True)."
        )
    if found["args"] != settings:
        raise ValueError(
            f"the run that is resumed had JellyCallback({_call(found['args'])}), this one has "
            f"JellyCallback({_call(settings)}). Resume with the same, or begin anew."
        )
    if lost:
        raise ValueError(
            f"restore_callback_states_from_checkpoint has made JellyCallback without its "
            f"{' and '.join(lost)}. Leave it False: this callback restores itself."
        )
    saved: State = found["attributes"]["saved"]
    return saved


def check_step(switch: Switch, saved: State) -> None:
    """Refuse an adapter that is switched where the run's state says it is not, or the reverse."""
    forms = [m.forms[switch.adapter] for m in switch.layers.values() if switch.adapter in m.forms]
    if any(
        form.switch_step != saved["step"] for form in forms if form.sequential or form.switch_step
    ):
        raise ValueError(
            "the adapter and trainer_state.json of the checkpoint are of different steps; it is damaged. "
            "Resume from an earlier one."
        )


def _call(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
