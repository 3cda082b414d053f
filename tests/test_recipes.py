"""The shipped comparisons are fair: beside the head as many numbers train for every method with a rank."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from graftlab import config, runfile, study
from graftlab.adapters.low_rank import lora_layers
from graftlab.contracts import Attached, Backbone, Problem, Setting
from graftlab.methods.adalora import _factors
from graftlab.study.design import Planned
from graftlab.weights import surgery

WIDTH, HIDDEN = (
    24,
    40,
)  # of the small copies: what matters is the layers' names, and which are square
NUM_STEPS = 6


class Architecture(NamedTuple):
    """A small copy of a backbone, with as many blocks as the real one."""

    make: Callable[[], nn.Module]
    head: tuple[str, ...]
    layers: int
    """Adapted layers: the blocks, times the targets in each."""


def small(model_type: str, blocks: int, **fields: Any) -> Any:
    from transformers import AutoConfig

    shape = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_attention_heads": 4}
    return AutoConfig.for_model(model_type, num_hidden_layers=blocks, **shape, **fields)


def deberta() -> nn.Module:
    from transformers import DebertaV2ForSequenceClassification

    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}
    fields = {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "position_biased_input": False}
    return DebertaV2ForSequenceClassification(
        small("deberta-v2", 12, vocab_size=50, **relative, **fields)
    )


def vit() -> nn.Module:
    from transformers import ViTForImageClassification

    return ViTForImageClassification(small("vit", 12, image_size=8, patch_size=4))


def demo() -> nn.Module:
    from transformers import ViTForImageClassification

    return ViTForImageClassification(small("vit", 3, image_size=8, patch_size=4))


def minilm() -> nn.Module:
    from transformers import BertForSequenceClassification

    return BertForSequenceClassification(small("bert", 6, vocab_size=50))


def llama() -> nn.Module:
    from transformers import LlamaForSequenceClassification

    return LlamaForSequenceClassification(small("llama", 32, vocab_size=50))


def smollm() -> nn.Module:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM(small("llama", 30, vocab_size=50, num_key_value_heads=2))


STUDIES = {
    "glue/compare": Architecture(deberta, ("pooler", "classifier"), 12 * 4),
    "vision/compare": Architecture(vit, ("classifier",), 12 * 4),
    "commonsense/compare": Architecture(minilm, ("classifier",), 6 * 3),
    "commonsense/compare-llama": Architecture(llama, ("score",), 32 * 3),
    "jelly/trec": Architecture(minilm, ("classifier",), 6 * 3),
    "jelly/arc": Architecture(smollm, (), 30 * 2),
    "jelly/images": Architecture(demo, ("classifier",), 3 * 4),
}
MADE_BY_THE_DEMO = {"jelly/images": ["base.backbone.model=vit"]}


def rows(name: str) -> Iterator[Planned]:
    """Yield one run of every row of a study."""
    planned = study.read(name, MADE_BY_THE_DEMO.get(name, ())).runs
    found = {run.cell.method: run for run in planned}
    yield from (run for run in found.values() if run.file.method.name != "bitfit")


def attach(run: Planned, architecture: Architecture) -> Attached:
    """Return the run's method on the small copy of its backbone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture.make()
    kind = run.file.backbone.name
    backbone = Backbone(model, kind, None, architecture.head, None, {"source": "small"})
    problem = Problem("classes", ("a", "b")) if architecture.head else Problem("tokens")
    setting = Setting(0, NUM_STEPS, 3, problem, lambda: iter(()))
    attached: Attached = run.file.method.module.attach(backbone, run.file.method.config, setting)
    return attached


def beside_the_head(model: nn.Module, head: tuple[str, ...]) -> int:
    """Return how many numbers train that are not the head's."""
    found = surgery.trainable(model)
    inside = [name for name in found if any(f".{part}.modules_to_save." in name for part in head)]
    assert bool(inside) == bool(head), "a head trains"
    return sum(p.numel() for name, p in found.items() if name not in inside)


@pytest.mark.quick("vision/compare")
@pytest.mark.parametrize("name", STUDIES)
def test_every_method_with_a_rank_trains_as_many_parameters(name: str) -> None:
    """On square layers of width D, LoRA's count: layers x rank 8 x (D + D)."""
    architecture = STUDIES[name]
    expected = architecture.layers * 8 * (WIDTH + WIDTH)
    for run in rows(name):
        attached = attach(run, architecture)
        if run.file.method.name == "adalora":
            factors = allocated(attached)
            assert len(factors) == architecture.layers, run.cell
            found = sum(up.numel() + down.numel() for up, down in factors)
        else:
            found = beside_the_head(attached.model, architecture.head)
        assert found == expected, run.cell


def allocated(attached: Attached) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the factors that AdaLoRA keeps of each layer after a run of drawn gradients."""
    generator = torch.Generator().manual_seed(0)
    for step in range(1, NUM_STEPS + 1):
        for parameter in surgery.trainable(attached.model).values():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for hook in attached.hooks:
            hook.after_optimizer_step(step)
    return [_factors(layer) for layer in lora_layers(attached.model).values()]


OF_JELLYS_TRAINER = [
    name
    for name in config.recipes()
    if name.startswith(("glue/", "vision/", "commonsense/")) and name.endswith("-jelly")
]


@pytest.mark.quick("glue/qnli-jelly", "vision/dtd-jelly")
@pytest.mark.parametrize("name", [*OF_JELLYS_TRAINER, "jelly/dynamic"])
def test_one_override_makes_a_recipe_of_jellys_trainer_switch_as_its_source(name: str) -> None:
    """The source: double projection with B zero, peak from step 50, switch from step 100, no latest step."""
    if name.endswith("/base-jelly"):
        pytest.skip("no run: it names no task")
    ours = runfile.resolve(config.read(name)).method.config
    theirs = runfile.resolve(config.read(name, ["@jelly/as-source"])).method.config
    source = {"switch_method": "tip", "warmup": 50, "minimum": 100, "latest": 1.0}
    assert theirs == ours.model_copy(update=source)
    assert (theirs.mode, theirs.ema, theirs.drop_ratio, theirs.patience) == ("dynamic", 0.1, 0.2, 1)


def test_the_source_on_trec_is_the_dynamic_recipe_with_that_override() -> None:
    source = runfile.resolve(config.read("jelly/source")).method.config
    assert (
        source == runfile.resolve(config.read("jelly/dynamic", ["@jelly/as-source"])).method.config
    )


def test_a_commonsense_step_has_the_examples_of_the_sources_command() -> None:
    """`train_CS.py`: batches of 16, gradients of 4 accumulated."""
    for name in ("commonsense/piqa-jelly", "commonsense/piqa-lora"):
        training = runfile.resolve(config.read(name)).training
        assert (training.batch_size, training.micro_batch_size) == (16 * 4, 16)
