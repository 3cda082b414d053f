"""The path of a change and its sharpness: known curves, exact Hessians, and both ends of the path."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
import transformers
from finished_runs import finish
from made import Made
from peft import LoraConfig, get_peft_model
from torch import nn

from graftlab import explanation, inference
from graftlab.analyses import path, sharpness
from graftlab.backbones import tiny
from graftlab.contracts import About, Asked, Change, Differentiable, Merged, Problem, Texts
from graftlab.explanation import Model, findings, sample, targets
from graftlab.explanation.adapter_folder import AdapterFolder
from graftlab.explanation.spool import Spool
from graftlab.plots import loss_path
from graftlab.runs import material
from graftlab.testing.analyses import SEVERAL, asked

THREE = Texts(("one two", "three", "four five six"), "3 texts")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Walks(NamedTuple):
    """A subject with one weight and one that is new, whose task's loss is their squared distance from 0."""

    change_given: Change
    before: torch.Tensor
    writes: bool = True

    @property
    def about(self):
        return About("m", 3, "lora", 2, "t")

    def names(self):
        return ["a.weight", "new.weight"]

    def change(self, name):
        return self.change_given

    def base(self, name):
        return self.before if name == "a.weight" else None

    def merged(self, examples):
        model = nn.ModuleDict(
            {"a": nn.Linear(4, 5, bias=False), "new": nn.Linear(1, 1, bias=False)}
        )
        model.double()
        nn.init.constant_(model["new"].weight, 2)

        def loss():
            return sum(p.square().sum() for p in model.parameters())

        return Merged(model, loss, "planted", (lambda t: len(t)) if self.writes else None)


LEFT, RIGHT, BEFORE = drawn(5, 2, seed=1), drawn(2, 4, seed=2), drawn(5, 4, seed=3)


def walked(change=None, asked=None, **given):
    change = change or Change("a.weight", LEFT, RIGHT)
    return list(path.rows([Walks(change, BEFORE, **given)], asked or Asked(texts=THREE)))


def test_the_loss_is_that_of_the_weight_at_each_place_and_a_new_weight_stays():
    lines = walked()
    assert [line.scale for line in lines] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]
    for line in lines:
        expected = float((BEFORE + line.scale * LEFT @ RIGHT).square().sum()) + 4
        assert line.task_loss == pytest.approx(expected)
        assert (line.text_loss, line.texts) == (3, "3 texts")


def test_the_null_moves_as_far_and_elsewhere_by_the_seed():
    """|W0 + s R|^2 is a parabola in s whose curvature is the change's size, and whose slope is drawn."""
    lines, other = walked(), walked(asked=Asked(texts=THREE, seed=1))
    scales, nulls = (np.array([getattr(r, c) for r in lines]) for c in ("scale", "null_task_loss"))
    square = float((LEFT @ RIGHT).square().sum())
    assert np.polyfit(scales, nulls, 2)[[0, 2]] == pytest.approx(
        [square, float(BEFORE.square().sum()) + 4]
    )
    assert lines[0].null_task_loss == lines[0].task_loss
    assert other[4].null_task_loss != lines[4].null_task_loss
    assert walked(asked=Asked(texts=THREE, null=False))[4].null_task_loss is None


def test_what_is_missing_is_said_and_the_rest_is_there():
    none = walked(writes=False)[4]
    assert (none.text_loss, none.texts, none.note) == (None, None, path.NO_TEXTS)
    assert none.task_loss is not None
    broken = walked(Change("a.weight", LEFT * math.nan, RIGHT))
    assert broken[1].task_loss is None
    assert broken[1].note == "not finite"


def test_only_what_training_has_come_to_is_compared():
    lines = walked()
    assert findings.at_last(lines) == [lines[4]]


def test_the_figure_has_both_losses_over_the_scales():
    lines = walked()
    found = loss_path.data(lines).panels
    np.testing.assert_array_equal(found["task_loss"]["m"].mean, [r.task_loss for r in lines])
    np.testing.assert_array_equal(found["text_loss"]["m"].scales, path.SCALES)


# The Hessian.


def quadratic(values, linear=0.0):
    """A loss x^T H x / 2 + linear * x whose Hessian has planted eigenvalues, over two parameters."""
    size = len(values)
    turn = torch.linalg.qr(drawn(size, size)).Q
    hessian = turn @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ turn.T
    model = nn.ParameterList(
        [nn.Parameter(drawn(1, seed=1)), nn.Parameter(drawn(size - 1, seed=2))]
    )

    def loss():
        x = torch.cat(list(model))
        return x @ hessian @ x / 2 + linear * x.sum()

    return Differentiable(model, loss, "planted")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([7.0, 2, 1, 0.5], 7), ([-9.0, 2, 1, 0.5], 2), ([-3.0, -2, -1], -1), ([0.0, 0, 0], 0)],
)
def test_a_quadratic_has_its_largest_eigenvalue_also_where_another_is_larger_in_size(
    values, expected
):
    _, size, found = sharpness.sharpness(quadratic(values, linear=1), 0)
    assert size == len(values)
    # an eigenvalue is within the residual of the quotient, and the quotient within its square over the gap
    assert found.value == pytest.approx(expected, abs=sharpness.CLOSE * max(map(abs, values)))
    assert found.residual <= sharpness.CLOSE


def test_it_is_that_of_the_exact_hessian_of_a_small_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    frozen = model[0].bias.requires_grad_(False)
    x, y = drawn(8, 3, seed=4), drawn(8, 2, seed=5)
    weights = {n: p.detach() for n, p in model.named_parameters() if p is not frozen}
    flat = torch.cat([w.reshape(-1) for w in weights.values()])

    def loss(flat):
        parts = flat.split([w.numel() for w in weights.values()])
        given = {n: p.reshape(weights[n].shape) for n, p in zip(weights, parts, strict=True)}
        return (torch.func.functional_call(model, given, (x,)) - y).square().mean()

    exact = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))
    given = Differentiable(model, lambda: (model(x) - y).square().mean(), "planted")
    value, size, found = sharpness.sharpness(given, 0)
    assert (value, size) == (pytest.approx(float(loss(flat))), len(flat))
    assert found.value == pytest.approx(float(exact[-1]), rel=sharpness.CLOSE)
    firsts = [sharpness.sharpness(given, seed)[2].first for seed in range(60)]
    spread = np.std(firsts) / math.sqrt(60)
    assert np.mean(firsts) == pytest.approx(float(exact.mean()), abs=4 * spread)
    assert all(p.grad is None for p in model.parameters())


class Sharp(NamedTuple):
    """A subject with a loss that is given."""

    given: Differentiable | str

    @property
    def about(self):
        return About("m", 3, "lora", 2, "t")

    def names(self):
        return ["a.weight"]

    def differentiable(self, examples):
        return self.given


def sharp(given, **asked):
    (line,) = sharpness.rows([Sharp(given)], Asked(**asked))
    return line


def test_a_line_has_the_curvature_of_a_random_direction_and_says_what_is_wrong(monkeypatch):
    line = sharp(quadratic([7.0, 2, 1]))
    assert (line.parameters, line.note) == (3, None)
    assert 1 <= line.null_largest_eigenvalue <= 7
    assert sharp(quadratic([7.0, 2, 1]), null=False).null_largest_eigenvalue is None
    assert sharp("there is no model").note == "there is no model"
    model = nn.ParameterList([nn.Parameter(drawn(3))])

    def once():
        return torch.fake_quantize_per_tensor_affine(model[0].float(), 0.1, 0, 0, 255).sum()

    flat = sharp(Differentiable(model, once, "planted"))
    assert (flat.largest_eigenvalue, flat.residual) == (0, 0)  # linear: nothing bends
    infinite = sharp(Differentiable(model, lambda: model[0].square().sum() * math.inf, "planted"))
    assert (infinite.largest_eigenvalue, infinite.note) == (None, "not finite")
    close = quadratic([1.0, 1 - 1e-9, -1.0])
    monkeypatch.setattr(sharpness, "MOST", 3)
    unfinished = sharp(close)
    assert "not converged" in unfinished.note
    assert unfinished.residual > sharpness.CLOSE


# Of models.


def test_the_loss_of_texts_is_the_mean_over_all_tokens_but_each_first():
    backbone = tiny.load(tiny.Config(), Problem("tokens"), seed=0)
    model, tokenizer = backbone.model.eval(), backbone.processor
    total, count = 0.0, 0
    for text in THREE.values:
        ids = tokenizer(text, return_tensors="pt")["input_ids"][0]
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0]
        total += float(nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="sum"))
        count += len(ids) - 1
    assert sample.of_texts(model, tokenizer, THREE.values) == pytest.approx(total / count, rel=1e-5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return Made(lambda name: finish(folder, {"name": name}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "full", "dora"])
def test_a_path_begins_at_the_backbones_loss_and_passes_the_runs_own(runs, name):
    """Of the backbone with the trained head: it has none of its own."""
    run = runs[name]
    with Spool() as spool:
        subjects = targets.find([str(run.path)], targets.Options(), spool)[0].subjects
        lines = list(path.rows(subjects, Asked(texts=THREE, examples=8, null=False)))
    adapted = inference.load(run.path, device="cpu", step=lines[0].checkpoint)
    own = loss_of(adapted)
    fresh = material.backbone(adapted.file, adapted.problem).model
    merged = adapted.file.method.module.merge(adapted.model)
    for part in adapted.backbone.head:
        fresh.get_submodule(part).load_state_dict(merged.get_submodule(part).state_dict())
    by_scale = {line.scale: line for line in lines}
    assert by_scale[1].task_loss == pytest.approx(own, rel=1e-5)
    before = loss_of(dataclasses.replace(adapted, model=fresh))
    assert by_scale[0].task_loss == pytest.approx(before, rel=1e-5)
    assert before != pytest.approx(own, rel=1e-4)
    assert by_scale[1].sample == "8 examples of validation"
    assert {line.note for line in lines} == {path.NO_TEXTS}


def loss_of(adapted):
    sample.train_again(adapted.model)
    return float(sample.of_task(adapted, 8).loss().detach())


def test_general_text_has_the_bases_loss_at_0_and_the_adapters_at_1(tmp_path):
    backbone = tiny.load(tiny.Config(), Problem("tokens"), seed=0)
    for part in (backbone.model, backbone.processor):
        part.save_pretrained(tmp_path / "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    before = sample.of_texts(base, backbone.processor, THREE.values)
    config = LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    adapted = get_peft_model(base, config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    now = sample.of_texts(adapted, backbone.processor, THREE.values)
    given = AdapterFolder(tmp_path / "adapter", str(tmp_path / "base"), About("a"))
    by_scale = {line.scale: line for line in path.rows([given], Asked(texts=THREE))}
    assert by_scale[0].text_loss == pytest.approx(before, rel=1e-5)
    assert by_scale[1].text_loss == pytest.approx(now, rel=1e-5)
    assert before != pytest.approx(now, rel=1e-4)
    assert by_scale[1].null_text_loss != pytest.approx(now, rel=1e-4)
    (bent,) = sharpness.rows([given], Asked())
    assert bent.residual <= sharpness.CLOSE  # attention has a second derivative here
    assert bent.parameters == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_both_are_written_with_their_figures_and_stand_on_the_page(tmp_path):
    models = [Model("other", SEVERAL[1:])]
    kinds = ["path", "sharpness"]
    tables, drawn = explanation.carry_out(models, tmp_path, kinds, asked())
    explanation.write(tmp_path, models, tables, drawn)
    for name, figure in (("path", "loss_path"), ("sharpness", "sharpness")):
        assert (tmp_path / name / f"{name}_results.csv").is_file()
        assert (tmp_path / name / "planted" / f"{figure}.svg").is_file()
    assert "Path of the change" in (tmp_path / "analysis.html").read_text()
