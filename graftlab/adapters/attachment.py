"""Put a PEFT adapter on a backbone, and turn it off for a while."""

import contextlib
import copy
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from graftlab.contracts import Backbone
from graftlab.errors import ConfigError, Place
from graftlab.seeds import mix
from graftlab.weights import surgery

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn

ADAPTER = "default"  # PEFT's name for an adapter that was given none
PREFIX = "base_model.model."  # where PEFT's tuners keep the model that they hold


class CommonFields(TypedDict):
    """What every PEFT config says."""

    task_type: str | None
    modules_to_save: list[str] | None


def task_type(backbone: Backbone) -> str | None:
    """Return PEFT's task type, or None where the model takes no token ids."""
    if getattr(backbone.model, "main_input_name", None) != "input_ids":
        return None
    return "SEQ_CLS" if backbone.head else "CAUSAL_LM"


def common_fields(backbone: Backbone) -> CommonFields:
    """Return the fields that every PEFT config has: what it is for, and the head that trains too."""
    return {"task_type": task_type(backbone), "modules_to_save": list(backbone.head) or None}


def resolve(
    backbone: Backbone, targets: str | Sequence[str], rank: int, section: str = "method"
) -> list[str]:
    """Return the names of the layers to adapt; `section` of the run file says them.

    Raises:
        ConfigError: nothing matches, or `rank` is larger than the smaller side of one of them.
    """
    names = surgery.match_targets(backbone.model, targets, backbone.head, section)
    smallest = min(names, key=lambda name: _rank_limit(backbone.model, name))
    if rank > (limit := _rank_limit(backbone.model, smallest)):
        raise ConfigError(
            f"{section}.rank is {rank}, but {smallest} has rank {limit} at most. "
            f"Set {section}.rank to 1..{limit}, or leave that layer out of {section}.targets.",
            kind="not_allowed",
            place=Place(key=(*section.split("."), "rank")),
            given=rank,
            allowed=f"1 to {limit}",
        )
    return names


def _rank_limit(model: "nn.Module", name: str) -> int:
    layer = model.get_submodule(name)
    sides = [getattr(layer, side, None) for side in ("in_features", "out_features")]
    return min(side or min(layer.get_parameter("weight").shape) for side in sides)


def make_config(cls: Any, fields: Mapping[str, object], further: Mapping[str, object]) -> Any:
    """Return a PEFT config of class `cls`.

    Raises:
        ConfigError: PEFT refuses the values, or no target stands in `layers_to_transform`.
    """
    try:
        config = cls(**fields, **further)
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(f"peft refuses method.peft {dict(further)}: {error}") from error
    if further.get("layers_to_transform") is not None:
        config.target_modules = _in_layers(config)
    return config


def _in_layers(config: Any) -> set[str]:
    """Return the targets that stand in `layers_to_transform`, by peft's own rule.

    peft applies it to the last names of layers alone, and ours are full ones.

    Raises:
        ConfigError: there are none.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

    by_last_name = copy.copy(config)
    by_last_name.target_modules = {name.rpartition(".")[2] for name in config.target_modules}
    kept = {n for n in config.target_modules if check_target_module_exists(by_last_name, n)}
    if not kept:
        raise ConfigError(
            f"method.peft.layers_to_transform {config.layers_to_transform}: none of the "
            f"{len(config.target_modules)} layers that method.targets match stands there."
        )
    return kept


def attach(backbone: Backbone, config: "PeftConfig", seed: int) -> "PeftModel":
    """Return the backbone, frozen, with a new adapter whose random weights depend on `seed` alone.

    Raises:
        ConfigError: PEFT refuses the config for this model.
    """
    from peft import get_peft_model

    surgery.freeze(backbone.model)
    with drawing(seed), quiet():
        try:
            model = get_peft_model(backbone.model, config)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"peft refuses the method for this backbone: {error}") from error
    name_source(config, backbone)
    surgery.train_in_float32(model)
    return model


def name_source(config: "PeftConfig", backbone: Backbone) -> None:
    """Write into PEFT's config where the backbone came from, so that others can load the adapter."""
    config.base_model_name_or_path = backbone.record.get("source")
    config.revision = backbone.record.get("revision")


@contextlib.contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Draw random numbers from `seed`, and leave the run's own randomness where it was."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(mix(seed, "adapter"))
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what peft 0.21 and transformers 5 say of each other, and advice that is not for users."""
    with warnings.catch_warnings():
        for said in (
            "`is_gradient_checkpointing` is deprecated",  # peft asks the deprecated property
            "lora with eva initialization used with low_cpu_mem_usage=False",
            "The following rank_pattern keys did not match",  # AdaLoRA's keys end in .lora_E
            "fan_in_fan_out is set to",  # peft finds the right value itself
        ):
            warnings.filterwarnings("ignore", message=re.escape(said))
        yield


def random_frozen(model: "nn.Module") -> tuple[str, ...]:
    """Return the names of the head's weights as they were before training.

    They are random and frozen, and the model uses them when the adapter is off.
    """
    return tuple(name for name in model.state_dict() if ".original_module." in name)


@contextlib.contextmanager
def off(model: "PeftModel") -> Iterator[None]:
    """Let the model be the backbone, head included, for the time of a `with` block."""
    from peft.utils.other import AuxiliaryTrainingWrapper

    if not model.peft_config[ADAPTER].is_prompt_learning:
        with model.disable_adapter():
            yield
        return
    # peft 0.21.2: disable_adapter() of a prompt method raises UnboundLocalError on models without
    # prepare_inputs_for_generation, and leaves the trained head on elsewhere. A test in
    # tests/methods/test_prompt.py fails when peft mends it; then this branch can go.
    heads = [m for m in model.modules() if isinstance(m, AuxiliaryTrainingWrapper)]
    model.__dict__["forward"] = model.get_base_model().forward
    for head in heads:
        head.enable_adapters(False)
    try:
        yield
    finally:
        del model.__dict__["forward"]
        for head in heads:
            head.enable_adapters(True)


def merge(model: "PeftModel") -> "nn.Module":
    """Return the plain model with the adapter folded into its weights. The adapter is gone."""
    return model.merge_and_unload()
