"""What a launcher asks of FSDP and DeepSpeed: read, refused, and told to them as the run file has it."""

import importlib.util

import pytest
import torch
from plain_loops import fields
from torch import nn

from graftlab.errors import ConfigError
from graftlab.training.parallel import launch, request, zero_settings
from graftlab.training.parallel.processes import Processes


def fsdp(**settings):
    said = {k: v for k, v in {"FSDP_VERSION": "2", **settings}.items() if v is not None}
    return launch.sharding(request.Asked("fsdp", said), Processes())


def zero(stage=2, **settings):
    said = {"ZERO_STAGE": str(stage), **settings}
    asked = {f"ACCELERATE_DEEPSPEED_{name}": value for name, value in said.items()}
    return launch.sharding(request.Asked("zero", asked), Processes())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"FSDP_VERSION": "1"}, "fsdp_version: 2"),
        ({"FSDP_VERSION": None}, "fsdp_version: 2"),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, "SIZE_BASED_WRAP"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
    ],
)
def test_settings_of_fsdp_that_are_not_there_are_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        fsdp(**settings)


def test_settings_of_fsdp_are_read_as_accelerate_writes_them():
    plain, said = (
        fsdp(),
        fsdp(
            FSDP_AUTO_WRAP_POLICY="transformer_based_wrap",
            FSDP_TRANSFORMER_CLS_TO_WRAP="BertLayer, ,LlamaDecoderLayer ",
            FSDP_RESHARD_AFTER_FORWARD="false",
        ),
    )
    assert (plain.name, plain.wrap, plain.classes, plain.reshard) == (
        "fsdp",
        "NO_WRAP",
        set(),
        True,
    )
    assert (said.wrap, said.reshard) == ("TRANSFORMER_BASED_WRAP", False)
    assert said.classes == {"BertLayer", "LlamaDecoderLayer"}


def test_settings_of_fsdp_without_effect_are_said(caplog):
    fsdp(
        FSDP_ACTIVATION_CHECKPOINTING="true",
        FSDP_CPU_RAM_EFFICIENT_LOADING="false",
        FSDP_OFFLOAD_PARAMS="false",
    )
    [record] = caplog.records
    assert record.args[0] == "fsdp_activation_checkpointing"
    assert "training.gradient_checkpointing" in record.getMessage()


@pytest.mark.parametrize(
    ("changes", "quantized", "named"),
    [
        *(
            ({"optimizer": {"name": name}}, False, name)
            for name in ("adafactor", "rprop", "adamw_8bit")
        ),
        ({"precision": "fp16"}, False, "fp16"),
        ({"compile": True}, False, r"training\.compile"),
        ({}, True, r"backbone\.quantization"),
        ({"precision": "bf16", "optimizer": {"name": "sgd"}}, False, None),
    ],
)
def test_what_does_not_go_with_fsdp_is_refused(changes, quantized, named):
    made = fsdp()
    if named is None:
        made.check(fields(**changes), False, quantized)
        return
    with pytest.raises(ConfigError, match=named):
        made.check(fields(**changes), False, quantized)


@pytest.mark.parametrize("stage", [0, 1, 4])
def test_a_stage_of_zero_that_is_not_there_is_refused(stage):
    with pytest.raises(ConfigError, match=str(stage)):
        zero(stage)


def test_zero_says_its_stage_and_has_an_engine_only_once_it_has_begun():
    for stage in (2, 3):
        made = zero(stage)
        assert (made.name, made.stage, made.engine, made.lockstep) == (
            f"zero{stage}",
            stage,
            None,
            True,
        )


def test_deepspeed_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "deepspeed" else there(name)
    )
    with pytest.raises(ConfigError) as caught:
        zero()
    assert "'deepspeed'" in str(caught.value)
    assert "graftlab[deepspeed]" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "steers", "quantized", "named"),
    [
        ({}, True, False, "FSDP"),
        ({"optimizer": {"name": "adafactor"}}, False, False, "adafactor"),
        ({"optimizer": {"name": "adamw_8bit"}}, False, False, "adamw_8bit"),
        ({"precision": "fp16"}, False, False, "fp16"),
        ({"compile": True}, False, False, r"training\.compile"),
        ({}, False, True, r"backbone\.quantization"),
        ({"precision": "bf16", "optimizer": {"name": "adam"}}, False, False, None),
    ],
)
def test_what_does_not_go_with_zero_is_refused(changes, steers, quantized, named):
    made = zero()
    if named is None:
        made.check(fields(**changes), steers, quantized)
        return
    with pytest.raises(ConfigError, match=named):
        made.check(fields(**changes), steers, quantized)


def test_deepspeed_is_told_what_the_run_file_says_and_keeps_its_own_settings():
    own = {"zero_optimization": {"stage": 3}, "wall_clock_breakdown": True}
    told = zero_settings.of_run(own, fields(clip_norm=0.25, precision="bf16"), world=4)
    assert {key: told[key] for key in own} == own
    # DeepSpeed refuses a batch that is not micro-batch x accumulation x processes
    sizes = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
    assert [told[key] for key in sizes] == [1, 1, 4]
    assert told["gradient_clipping"] == 0.25
    assert told["torch_autocast"] == {
        "enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": [],
    }  # fmt: skip
    assert told["managed_gradient_accumulation"] is False
    assert told["zero_allow_untested_optimizer"] is True
    assert told["steps_per_print"] > 10**9
    plain = zero_settings.of_run(own, fields(clip_norm=0.0), world=1)
    assert (plain["gradient_clipping"], plain["torch_autocast"]["enabled"]) == (0.0, False)


@pytest.mark.slow  # seconds, to import it
def test_deepspeed_understands_what_it_is_told(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.config import DeepSpeedConfig

    told = zero_settings.of_run(zero(3).settings, fields(clip_norm=0.25, precision="bf16"), world=1)
    read = DeepSpeedConfig(told)
    assert (read.zero_optimization_stage, read.gradient_clipping) == (3, 0.25)
    assert not read.managed_gradient_accumulation
    assert (read.torch_autocast_enabled, read.torch_autocast_dtype) == (True, torch.bfloat16)
    assert read.torch_autocast_lower_precision_safe_modules == []
    assert read.zero_allow_untested_optimizer
    assert read.steps_per_print > 10**9  # it has nothing to print


class Writer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def generate(self):
        """Write, as transformers' models do."""


@pytest.mark.parametrize("stage", [2, 3])
def test_nobody_stops_writing_before_the_others_where_weights_are_shared_out(stage):
    model = nn.Sequential(Writer(), nn.Linear(2, 2))
    zero(stage).shard(model, "cpu", steered=False)
    marked = [m for m in model.modules() if getattr(m, "_is_fsdp_managed_module", False)]
    assert marked == ([model[0]] if stage == 3 else [])
