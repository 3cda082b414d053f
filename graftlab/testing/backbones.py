"""The promises of every kind of backbone, over all registered names.

A kind brings a small model in its module: `example(folder: Path) -> Config` writes one as its authors
would have published it, and returns the section that loads it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import pytest
import torch
from torch import Tensor

from graftlab import registry
from graftlab.contracts import Backbone, Problem
from graftlab.testing import examples

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

every = pytest.mark.parametrize("name", registry.names("backbones"))
CLASSES = Problem("classes", ("low", "middle", "high"))
TEXTS = ("a short text", "a text that is longer than the other one")


class Load(Protocol):
    """Loads a kind's example."""

    def __call__(
        self, seed: int = 0, meta: bool = False, problem: Problem = CLASSES
    ) -> Backbone: ...


@pytest.fixture
def load(name: str, tmp_path: Path) -> Load:
    """Return a function that loads the kind's example; fails for a kind that brings none."""
    module = registry.find("backbones", name)
    make = module.example or examples.BACKBONES.get(name)
    assert make, f"the backbone kind {name} has no example(folder) -> Config"
    config = make(tmp_path)

    def load(seed: int = 0, meta: bool = False, problem: Problem = CLASSES) -> Backbone:
        backbone: Backbone = module.load(config, problem, seed, meta)
        return backbone

    return load


def _inputs(backbone: Backbone) -> dict[str, Tensor]:
    if backbone.max_length is None:
        from PIL import Image

        images = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
        return dict(backbone.processor(images=images, return_tensors="pt"))
    return dict(backbone.processor(list(TEXTS), padding=True, return_tensors="pt"))


def _logits(backbone: Backbone, inputs: dict[str, Tensor]) -> Tensor:
    model: nn.Module = backbone.model
    with torch.no_grad():
        logits: Tensor = model(**inputs).logits
    return logits


def _config(backbone: Backbone) -> "PreTrainedConfig":
    return cast("PreTrainedModel", backbone.model).config


def _in_head(backbone: Backbone, name: str) -> bool:
    return name.startswith(tuple(f"{module}." for module in backbone.head))


@every
def test_a_backbone_says_what_it_is_and_where_it_comes_from(name: str, load: Load) -> None:
    backbone = load()
    assert backbone.kind == name
    assert backbone.record["source"]
    assert isinstance(backbone.record["sha256"], dict)
    assert not backbone.model.training


@every
def test_the_seed_fixes_every_weight_and_the_runs_own_randomness_stays(
    name: str, load: Load
) -> None:
    found = []
    for state_of_the_run in (1, 2):
        torch.manual_seed(state_of_the_run)
        before = torch.get_rng_state()
        found.append(load(seed=5).model.state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert list(found[0]) == list(found[1])
    assert [n for n in found[0] if not torch.equal(found[0][n], found[1][n])] == []


@every
def test_another_seed_changes_the_head_alone(name: str, load: Load) -> None:
    one, other = load(seed=0), load(seed=1)
    weights = other.model.state_dict()
    changed = [n for n, w in one.model.state_dict().items() if not torch.equal(w, weights[n])]
    assert changed
    assert [n for n in changed if not _in_head(one, n)] == []


@every
def test_the_head_is_there_and_trains_in_float32(name: str, load: Load) -> None:
    backbone = load()
    assert backbone.head
    for module in backbone.head:
        parameters = list(backbone.model.get_submodule(module).parameters())
        assert {parameter.dtype for parameter in parameters} == {torch.float32}


@every
def test_on_the_meta_device_it_has_the_same_names_and_shapes(name: str, load: Load) -> None:
    real, meta = load(), load(meta=True)
    shapes = [
        {n: parameter.shape for n, parameter in backbone.model.named_parameters()}
        for backbone in (real, meta)
    ]
    assert shapes[0] == shapes[1]
    assert {parameter.device.type for parameter in meta.model.parameters()} == {"meta"}
    assert (meta.kind, meta.max_length) == (real.kind, real.max_length)


@every
@pytest.mark.parametrize("problem", [CLASSES, Problem("regression")], ids=lambda p: p.kind)
def test_it_puts_out_what_the_problem_asks_for(name: str, load: Load, problem: Problem) -> None:
    backbone = load(problem=problem)
    logits = _logits(backbone, _inputs(backbone))
    assert logits.shape == (2, problem.num_outputs)
    assert logits.isfinite().all()
    if problem.labels:
        assert tuple((_config(backbone).id2label or {}).values()) == problem.labels


@every
def test_padding_is_agreed_on_and_changes_no_answer(name: str, load: Load) -> None:
    backbone = load()
    if backbone.max_length is None:
        pytest.skip("images have no padding")
    assert backbone.processor.pad_token_id is not None
    assert _config(backbone).pad_token_id == backbone.processor.pad_token_id
    padded = _logits(backbone, _inputs(backbone))[:1]
    alone = _logits(backbone, dict(backbone.processor([TEXTS[0]], return_tensors="pt")))
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


@every
def test_it_takes_inputs_of_its_greatest_length(name: str, load: Load) -> None:
    backbone = load()
    if backbone.max_length is None:
        pytest.skip("images have no length")
    text = "a " * backbone.max_length
    inputs = backbone.processor(
        [text], truncation=True, max_length=backbone.max_length, return_tensors="pt"
    )
    assert inputs["input_ids"].shape[1] == backbone.max_length
    assert _logits(backbone, dict(inputs)).isfinite().all()
