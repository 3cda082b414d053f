"""What JELLY's algebra promises, in float64: beside dense matrices, scipy, plain autograd, peft's LoRA."""

import copy
import itertools
import logging
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import nn

from graftlab.adapters import files
from graftlab.backbones import encoder
from graftlab.contracts import Backbone
from graftlab.errors import ModelError
from graftlab.methods import jelly, lora
from graftlab.methods.jelly import conversion, projections
from graftlab.methods.jelly.plan import Plan
from graftlab.methods.jelly.product import Correction
from graftlab.methods.jelly.switch import Switch
from graftlab.methods.jelly.tuner import layers
from graftlab.testing import rig

# Shapes: N examples, L tokens, I in features, O out features, R rank.

EXACT = 1e-10  # on outputs, of float64
PRESERVING = ("exact", "tip_preserve", "merge_reinit")
ENCODER = rig.FAMILIES["encoder"]


def bert():
    """Two layers of BERT with random biases: square layers, and ones of 32 x 48."""
    return rig.backbone(ENCODER)


def grouped_query_llama():
    """q and o are square; k, v (16 x 32), gate, up (48 x 32) and down (32 x 48) are not; all have biases."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=rig.VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, pad_token_id=0, num_labels=3,
        attention_bias=True, mlp_bias=True,
    )  # fmt: skip
    family = rig.Family("decoder", rig.CLASSES, "llama", lambda: None)
    family = family._replace(make=lambda: LlamaForSequenceClassification(config))
    return rig.backbone(family)


def minilm():
    try:
        return encoder.load(encoder.Config(model="minilm"), rig.CLASSES, seed=0)
    except ModelError as error:
        pytest.skip(f"MiniLM is not at hand: {error}")


MODELS = {"bert": bert, "llama": grouped_query_llama, "minilm": minilm}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def double(model):
    """Return the model in float64 throughout: Llama's norms would compute in float32."""
    for name, module in [*model.named_modules()]:
        if type(module).__name__ == "LlamaRMSNorm":
            parent, _, last = name.rpartition(".")
            norm = nn.RMSNorm(module.weight.shape[0], eps=module.variance_epsilon)
            norm.load_state_dict(module.state_dict())
            setattr(model.get_submodule(parent), last, norm)
    return model.double()


def attach(backbone: Backbone, **settings):
    """Return the backbone with JELLY in float64, its B's no longer zero."""
    settings = {"mode": "seq2par", "switch_step": 3, **settings}
    if settings["mode"] != "seq2par":
        del settings["switch_step"]
    attached = jelly.attach(backbone, jelly.Config(**settings), rig.setting(ENCODER))
    model = double(attached.model).eval()
    learn(model)
    return model


def learn(model, seed=1):
    """Stand in for a training: give every B some values."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers(model).values():
        b = layer.jelly_B["default"]
        b.data.copy_(0.1 * torch.randn(b.shape, generator=generator))


def switch(model, method, step=3):
    plan = Plan(mode="seq2par", switch_step=step, switch_method=method)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    return Switch(model, "default", plan, 6, 3)(step, optimizer)


def outputs(model):
    inputs = {k: v for k, v in rig.batch(ENCODER).items() if k != "labels"}
    with torch.no_grad():
        return model.eval()(**inputs).logits


def largest(tensor):
    return tensor.abs().max().item()


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The projection

SHAPES = [(4, 20, 20), (4, 12, 30), (4, 30, 12), (1, 9, 9)]  # R, O, I
shapes = pytest.mark.parametrize(("r", "o", "i"), SHAPES)


def projected(a_RO, w_OI):
    """Return (A Aᵀ)^½ times the polar factor of P W, P that of A: `tip` without a singular value."""
    polar_RO, root_RR = scipy.linalg.polar(a_RO.numpy(), side="left")
    return torch.tensor(root_RR @ scipy.linalg.polar(polar_RO @ w_OI.numpy(), side="left")[0])


@shapes
def test_tip_keeps_a_a_transposed_and_with_it_singular_values_and_norm(r, o, i):
    a_RO, w_OI = random(r, o), random(o, i, seed=1)
    new = projections.tip(a_RO, w_OI)
    torch.testing.assert_close(new @ new.T, a_RO @ a_RO.T, rtol=1e-12, atol=1e-12)


@shapes
def test_the_rows_of_tip_span_those_of_a_w(r, o, i):
    a_RO, w_OI = random(r, o), random(o, i, seed=1)
    both = torch.cat([projections.tip(a_RO, w_OI), a_RO @ w_OI])
    assert torch.linalg.matrix_rank(both) == r


@pytest.mark.parametrize("rank", [1, 2])
def test_tip_of_an_a_that_lacks_rank_keeps_both_and_finds_no_new_direction(rank):
    a_RO = random(4, rank) @ random(rank, 20, seed=2)
    w_OI = random(20, 20, seed=1)
    new = projections.tip(a_RO, w_OI)
    torch.testing.assert_close(new @ new.T, a_RO @ a_RO.T, rtol=1e-12, atol=1e-12)
    assert torch.linalg.matrix_rank(torch.cat([new, a_RO @ w_OI])) == rank


@shapes
def test_tip_is_scipys_polar_factors_whatever_signs_an_svd_has(r, o, i):
    a_RO, w_OI = random(r, o), random(o, i, seed=1)
    new = projections.tip(a_RO, w_OI)
    torch.testing.assert_close(new, projected(a_RO, w_OI), rtol=1e-10, atol=1e-12)


def test_tip_does_not_depend_on_the_basis_where_singular_values_are_equal():
    a_RO = 3 * torch.linalg.qr(random(20, 4)).Q.T  # any rotation of its singular vectors would do
    w_OI = random(20, 20, seed=1)
    expected = 3 * torch.tensor(scipy.linalg.polar((a_RO @ w_OI / 3).numpy(), side="left")[0])
    torch.testing.assert_close(projections.tip(a_RO, w_OI), expected, rtol=1e-10, atol=1e-12)


def test_a_rotation_and_a_sign_of_the_rank_pass_through_tip():
    a_RO, w_OI = random(4, 20), random(20, 20, seed=1)
    q_RR = torch.linalg.qr(random(4, 4, seed=2)).Q
    for turn in (q_RR, -torch.eye(4, dtype=torch.float64)):
        new = projections.tip(turn @ a_RO, w_OI)
        torch.testing.assert_close(new, turn @ projections.tip(a_RO, w_OI))


def test_behind_an_orthogonal_layer_tip_is_a_w():
    a_RO, w_OI = random(4, 20), torch.linalg.qr(random(20, 20, seed=1)).Q
    torch.testing.assert_close(projections.tip(a_RO, w_OI), a_RO @ w_OI)
    new_a, new_b = projections.tip_preserve(a_RO, random(20, 4, seed=3), w_OI)
    torch.testing.assert_close(new_a, a_RO @ w_OI)
    torch.testing.assert_close(new_b, random(20, 4, seed=3))


def low_rank(r, o, i, rank):
    return random(r, rank) @ random(rank, o, seed=2), random(o, i, seed=1)


@pytest.mark.parametrize(
    ("a_RO", "w_OI"),
    [
        *((random(r, o), random(o, i, seed=1)) for r, o, i in SHAPES),
        low_rank(4, 20, 20, rank=2),
        (random(4, 20), random(20, 2, seed=1) @ random(2, 20, seed=2)),  # W lacks rank
        (torch.zeros(4, 20, dtype=torch.float64), random(20, 20, seed=1)),
    ],
    ids=[*map(str, SHAPES), "A of rank 2", "W of rank 2", "A zero"],
)
def test_tip_preserve_has_the_a_of_tip_and_keeps_the_product(a_RO, w_OI):
    b_OR = random(len(w_OI), len(a_RO), seed=3)
    new_a, new_b = projections.tip_preserve(a_RO, b_OR, w_OI)
    torch.testing.assert_close(new_a, projections.tip(a_RO, w_OI))
    expected = b_OR @ a_RO @ w_OI
    torch.testing.assert_close(new_b @ new_a, expected, rtol=1e-11, atol=1e-12)


def test_the_b_of_an_ill_conditioned_a_is_large_and_still_keeps_the_product():
    u, _, vt = torch.linalg.svd(random(4, 20), full_matrices=False)
    a_RO = u * torch.logspace(0, -6, 4, dtype=torch.float64) @ vt
    w_OI, b_OR = random(20, 20, seed=1), random(20, 4, seed=3)
    new_a, new_b = projections.tip_preserve(a_RO, b_OR, w_OI)
    assert new_b.norm() / b_OR.norm() > 1e3
    torch.testing.assert_close(new_b @ new_a, b_OR @ a_RO @ w_OI, rtol=1e-8, atol=1e-9)


BLOCK = projections.BLOCK


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("o", [1, BLOCK - 1, BLOCK, BLOCK + 1, 7 * BLOCK + 3])
def test_a_layer_is_pulled_back_in_blocks_as_in_one(o, dtype):
    a_RO, w_OI = random(3, o).to(dtype), random(o, 5, seed=1).to(dtype)
    expected = a_RO.double() @ w_OI.double()
    torch.testing.assert_close(projections.pull_back(a_RO, w_OI), expected, rtol=1e-12, atol=1e-12)


# Whole models


@pytest.mark.quick("*-bert", "*-llama")
@every_model
@pytest.mark.parametrize("method", PRESERVING)
def test_a_switch_that_keeps_the_function_changes_no_output(make, method):
    plain = outputs(double(make().model))
    model = attach(make(), switch_method=method)
    before = outputs(model)
    assert largest(before - plain) > 1e-2  # there is something to keep
    switch(model, method)
    assert not any(layer.forms["default"].sequential for layer in layers(model).values())
    assert largest(outputs(model) - before) <= EXACT


@pytest.mark.quick("bert", "llama")
@every_model
def test_after_tip_the_model_is_the_backbone_with_the_trained_head(make):
    backbone = make()
    model = attach(backbone, switch_method="tip")
    (name,) = backbone.head
    head = model.get_submodule(f"base_model.model.{name}").modules_to_save["default"]
    trained = {n: random(*p.shape, seed=5) for n, p in head.named_parameters()}
    head.load_state_dict(trained)
    switch(model, "tip")
    plain = double(make().model)
    plain.get_submodule(name).load_state_dict(trained)
    assert torch.equal(outputs(model), outputs(plain))


@pytest.mark.quick("bert", "llama")
@every_model
def test_without_a_projection_the_function_jumps(make):
    model = attach(make(), switch_method="none", nonsquare="parallel")
    before = outputs(model)
    switch(model, "none")
    assert largest(outputs(model) - before) > 1e-3


@pytest.mark.quick("bert", "llama")
@every_model
def test_sequential_is_a_change_of_the_weights_by_s_b_a_w(make):
    model = attach(make(), mode="sequential", rank=4, alpha=6.0)
    plain = double(make().model)
    for name, layer in layers(model).items():
        weight = plain.get_parameter(f"{name.removeprefix('base_model.model.')}.weight")
        a, b = layer.jelly_A["default"], layer.jelly_B["default"]
        weight.data += (6 / 4) * b.detach() @ a.detach() @ weight.data
    assert largest(outputs(model) - outputs(plain)) <= EXACT
    assert largest(outputs(jelly.merge(model)) - outputs(plain)) <= EXACT


def numbers_that_train(model):
    return sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and "jelly_" in n)


@pytest.mark.parametrize("nonsquare", ["own_A", "parallel"])
@pytest.mark.parametrize("make", [bert, grouped_query_llama])
def test_as_many_numbers_train_as_the_table_of_modes_says(make, nonsquare, caplog):
    backbone = make()
    sides = {n: p.shape for n, p in backbone.model.named_parameters() if n.endswith("weight")}
    with caplog.at_level(logging.INFO, logger="graftlab"):
        model = attach(backbone, nonsquare=nonsquare, rank=4)
    adapted = [sides[n.removeprefix("base_model.model.") + ".weight"] for n in layers(model)]
    square = sum(o == i for o, i in adapted)
    assert 0 < square < len(adapted)
    parallel = sum(4 * (i + o) for o, i in adapted)
    sequential = sum(
        4 * 2 * o if nonsquare == "own_A" or o == i else 4 * (i + o) for o, i in adapted
    )
    assert numbers_that_train(model) == sequential
    own = len(adapted) - square
    said = (len(adapted), own, 0) if nonsquare == "own_A" else (square, 0, own)
    assert (
        "JELLY: {} layers sequential ({} of them not square), {} parallel; ".format(*said)
        + f"the adapter has {sequential} parameters while sequential, {parallel} when parallel"
    ) in caplog.messages
    switch(model, "exact")
    assert numbers_that_train(model) == parallel


# LoRA

LORAS = [
    {"mode": "parallel"},
    {"mode": "seq2par", "switch_epoch": 0.0},
    {"mode": "seq2par", "switch_epoch": -1.0},
    {"mode": "seq2par", "switch_step": 0},
]


@pytest.mark.quick("mode=parallel-*")
@pytest.mark.parametrize("family", ["encoder", "decoder", "tokens", "vision"])
@pytest.mark.parametrize("mode", LORAS, ids=lambda m: " ".join(f"{k}={v}" for k, v in m.items()))
def test_parallel_is_pefts_lora_bit_for_bit_through_training_with_dropout(family, mode):
    fitted = rig.FAMILIES[family]
    shared = {"rank": 4, "alpha": 6.0, "dropout": 0.2, "rslora": family == "vision"}
    ours, theirs = (
        method.attach(rig.backbone(fitted), config, rig.setting(fitted))
        for method, config in (
            (jelly, jelly.Config(**shared, **mode)),
            (lora, lora.Config(**shared)),
        )
    )
    assert not ours.hooks
    for attached in (ours, theirs):
        rig.train(attached, fitted, steps=rig.NUM_STEPS)
    expected = dict(theirs.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        for letter in "AB":
            name = name.replace(f"jelly_{letter}.default", f"lora_{letter}.default.weight")
        assert torch.equal(parameter, expected.pop(name)), name
    assert not expected
    assert torch.equal(rig.outputs(ours.model, fitted), rig.outputs(theirs.model, fitted))


# Gradients


def numbers(*leading):
    """Return x, A and B that want gradients, and a frozen W (O, I)."""
    x, a_RO, b_OR, w_OI = random(*leading, 5), random(2, 7), random(7, 2), random(7, 5, seed=1)
    return *(t.requires_grad_() for t in (x, a_RO, b_OR)), w_OI


def sequential(x, a_RO, b_OR, w_OI, base=(False, None)):
    return Correction.apply(x, x @ w_OI.T, a_RO, b_OR, 0.7, lambda: w_OI, *base)


def obvious(x, a_RO, b_OR, w_OI, base=(False, None)):
    h = x @ w_OI.T
    correction = 0.7 * (h @ a_RO.T @ b_OR.T)
    whole, bias = base
    return correction + (h if whole else 0) + (0 if bias is None else bias)


BASES = {
    "alone": (False, None),
    "with h": (True, None),
    "with h and bias": (True, random(7, seed=6)),
}
every_base = pytest.mark.parametrize("base", BASES.values(), ids=BASES)


@every_base
@pytest.mark.parametrize("leading", [(4,), (2, 3), (2, 3, 2)])
def test_the_gradients_of_the_product_are_right(leading, base):
    x, a_RO, b_OR, w_OI = numbers(*leading)
    assert torch.autograd.gradcheck(
        lambda *given: sequential(*given, w_OI, base), (x, a_RO, b_OR), atol=1e-8
    )


@every_base
@pytest.mark.parametrize("trains", itertools.product((True, False), repeat=3))
def test_the_product_and_its_gradients_are_those_of_plain_autograd(trains, base):
    x, a_RO, b_OR, w_OI = numbers(2, 3)
    wanted = []
    for tensor, needs in zip((x, a_RO, b_OR), trains, strict=True):
        wanted += [tensor] * tensor.requires_grad_(needs).requires_grad
    ours, theirs = (f(x, a_RO, b_OR, w_OI, base) for f in (sequential, obvious))
    torch.testing.assert_close(ours, theirs)
    assert ours.requires_grad == any(trains)
    weights = random(2, 3, 7, seed=4)
    if wanted:
        found, expected = (torch.autograd.grad((y * weights).sum(), wanted) for y in (ours, theirs))
        torch.testing.assert_close(found, expected)


@every_base
def test_the_product_of_lower_precision_is_corrected_in_that_of_the_adapter(base):
    x, a_RO, b_OR, w_OI = (t.detach().float() for t in numbers(2, 3))
    bias = None if base[1] is None else base[1].float()
    low = [t.bfloat16() for t in (x, w_OI)]
    h = low[0] @ low[1].T
    given = h.requires_grad_()
    y = Correction.apply(low[0], given, a_RO, b_OR, 0.7, lambda: low[1], base[0], bias)
    assert y.dtype == torch.float32
    kept = torch.zeros(()) if not base[0] else h.detach() + (0 if bias is None else bias.bfloat16())
    torch.testing.assert_close(y, kept + 0.7 * (h.float() @ a_RO.T @ b_OR.T))
    y.sum().backward()
    ones = torch.ones(2, 3, 7)
    expected = 0.7 * (ones @ b_OR @ a_RO) + (ones if base[0] else 0)
    torch.testing.assert_close(given.grad, expected.bfloat16())


def test_the_product_itself_is_left_as_it_is():
    x, a_RO, b_OR, w_OI = (t.detach() for t in numbers(2, 3))
    for base in BASES.values():
        h = x @ w_OI.T
        kept = h.clone()
        Correction.apply(x, h, a_RO, b_OR, 0.7, lambda: w_OI, *base)
        assert torch.equal(h, kept)


class Obvious(nn.Module):
    """The sequential layer as one would write it."""

    def __init__(self, layer):
        super().__init__()
        self.base, self.scaling = copy.deepcopy(layer.get_base_layer()), layer.scaling["default"]
        self.a, self.b = (nn.Parameter(d["default"].detach().clone())
                          for d in (layer.jelly_A, layer.jelly_B))  # fmt: skip

    def forward(self, x):
        h = nn.functional.linear(x, self.base.weight)
        y = h if self.base.bias is None else h + self.base.bias
        return y + self.scaling * (h @ self.a.T @ self.b.T)


@pytest.mark.parametrize("make", [bert, grouped_query_llama])
def test_the_gradients_of_a_whole_model_are_those_of_the_obvious_layer(make):
    model = attach(make(), mode="sequential")
    obvious = double(make().model).requires_grad_(False)
    for name, layer in layers(model).items():
        parent, _, last = name.removeprefix("base_model.model.").rpartition(".")
        setattr(obvious.get_submodule(parent), last, Obvious(layer))
    for trained in (model.train(False), obvious.train(False)):
        rig.loss(trained, ENCODER).backward()
    for name, layer in layers(model).items():
        expected = obvious.get_submodule(name.removeprefix("base_model.model."))
        for ours, theirs in ((layer.jelly_A, expected.a), (layer.jelly_B, expected.b)):
            assert theirs.grad.abs().max() > 0
            # the two losses are float32, so that is how much alike their gradients are
            torch.testing.assert_close(ours["default"].grad, theirs.grad, rtol=1e-5, atol=1e-9)


def test_while_b_is_zero_the_gradient_of_a_is_exactly_zero():
    attached = jelly.attach(bert(), jelly.Config(mode="sequential"), rig.setting(ENCODER))
    rig.loss(attached.model, ENCODER).backward()
    for layer in layers(attached.model).values():
        assert not layer.jelly_A["default"].grad.any()
        assert layer.jelly_B["default"].grad.any()


# What is recorded of a switch


@pytest.mark.parametrize("method", ["exact", "tip", "tip_preserve", "merge_reinit", "none"])
def test_a_change_is_recorded_as_dense_matrices_give_it(method):
    nonsquare = "parallel" if method == "none" else "own_A"
    model = attach(grouped_query_llama(), switch_method=method, nonsquare=nonsquare)
    sequential = [m for m in layers(model).values() if m.forms["default"].sequential]
    assert sequential
    for layer in sequential:
        w_OI = layer.frozen_weight()
        a, b = (d["default"].detach().numpy().copy() for d in (layer.jelly_A, layer.jelly_B))
        before = b @ a @ w_OI.numpy()
        change = conversion.switch(layer, "default", method, 3, torch.Generator().manual_seed(0))
        new_a, new_b = (d["default"].detach().numpy() for d in (layer.jelly_A, layer.jelly_B))
        kept = before if method == "merge_reinit" else 0
        expected = np.linalg.norm(new_b @ new_a + kept - before) / np.linalg.norm(before)
        assert change.relative_change == pytest.approx(expected, abs=1e-12)
        assert change.norm_ratio == pytest.approx(np.linalg.norm(new_b) / np.linalg.norm(b))
        assert change.effective_rank == pytest.approx([effective(a), effective(new_a)])
    values = {"exact": 0, "tip": 1, "tip_preserve": 0, "merge_reinit": 0}
    if method in values:
        assert change.relative_change == pytest.approx(values[method], abs=1e-12)


def effective(a):
    return np.exp(scipy.stats.entropy(np.linalg.svd(a, compute_uv=False)))


def test_the_effective_rank_of_equal_singular_values_is_their_number_and_of_nothing_zero():
    assert projections.effective_rank(torch.eye(6)[:4]) == pytest.approx(4)
    assert projections.effective_rank(torch.zeros(4, 6)) == 0


def test_nothing_that_stays_nothing_has_not_changed_and_something_from_nothing_has_no_ratio():
    zero, some = (torch.zeros(5, 2), torch.ones(2, 4)), (torch.ones(5, 2), torch.ones(2, 4))
    assert projections.relative_change(zero, zero) == 0
    assert projections.relative_change(zero, some) == float("inf")


def test_the_facts_of_a_switch_are_means_over_the_layers_and_the_largest_ratio():
    model = attach(grouped_query_llama(), switch_method="tip_preserve")
    twin = copy.deepcopy(model)
    changes = [
        conversion.switch(layer, "default", "tip_preserve", 3, torch.Generator())
        for layer in layers(twin).values()
    ]
    facts = switch(model, "tip_preserve")
    assert facts == pytest.approx({
        "jelly/switch_step": 3,
        "jelly/switched_layers": len(changes),
        "jelly/relative_change": np.mean([c.relative_change for c in changes]),
        "jelly/effective_rank_before": np.mean([c.effective_rank[0] for c in changes]),
        "jelly/effective_rank_after": np.mean([c.effective_rank[1] for c in changes]),
        "jelly/largest_norm_ratio": max(c.norm_ratio for c in changes),
    }, abs=1e-12)  # fmt: skip


# As plain LoRA

EXPORTS = {
    "sequential": {"mode": "sequential"},
    "exact": {"switch_method": "exact"},
    "tip_preserve with rslora": {"switch_method": "tip_preserve", "rslora": True},
    "merge_reinit": {"switch_method": "merge_reinit"},
    "merge_reinit with rslora": {"switch_method": "merge_reinit", "rslora": True},
    "mixed": {"switch_method": "merge_reinit", "nonsquare": "parallel"},
}


def exported(backbone, **settings):
    """Return a model that has been trained, switched where it is to be, and trained again."""
    model = attach(backbone, rank=4, alpha=6.0, **settings)
    if "switch_method" in settings:
        switch(model, settings["switch_method"])
        for layer in layers(model).values():
            layer.jelly_B["default"].data += 0.1
    return model


@pytest.mark.parametrize("settings", EXPORTS.values(), ids=EXPORTS)
@pytest.mark.parametrize("make", [bert, grouped_query_llama])
def test_the_weights_of_the_lora_are_the_change_of_each_layer(make, settings):
    model = exported(make(), **settings)
    config, weights = jelly.to_lora(model)
    assert config["peft_type"] == "LORA"
    for name, layer in layers(model).items():
        name, (n, o) = name.removeprefix("base_model.model."), layer.frozen_weight().T.shape
        reinitialised = settings.get("switch_method") == "merge_reinit" and (
            n == o or settings.get("nonsquare") != "parallel"
        )
        rank = 8 if reinitialised else 4
        down, up = (weights[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
        assert (down.shape, up.shape) == ((rank, n), (o, rank))
        assert config["rank_pattern"].get(name, config["r"]) == rank
        alpha = config["alpha_pattern"].get(name, config["lora_alpha"])
        scaling = alpha / (rank**0.5 if config["use_rslora"] else rank)
        inputs = random(5, n, seed=7)
        bias = layer.get_base_layer().bias
        expected = layer(inputs) - inputs @ layer.frozen_weight().T - bias
        torch.testing.assert_close(scaling * inputs @ down.T @ up.T, expected.detach())


LOADS = """if True:
    import sys
    sys.modules["graftlab"] = None  # what imports it fails
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(1)
    here, *folders = sys.argv[1:]
    given = load_file(f"{here}/given.safetensors")
    for folder in folders:
        base = AutoModelForSequenceClassification.from_pretrained(f"{here}/base")
        model = PeftModel.from_pretrained(base, folder).eval()
        with torch.no_grad():
            logits = model(given["input_ids"], given["attention_mask"]).logits
        torch.testing.assert_close(logits, given[folder], rtol=1e-4, atol=1e-5)  # sums in another order
    print(torch.__version__, sorted(m for m in sys.modules if m.startswith("graftlab")))
"""


@pytest.mark.slow  # a process of its own
def test_plain_peft_loads_the_exports_where_graftlab_is_not_installed(tmp_path):
    from safetensors.torch import save_file

    bert().model.save_pretrained(tmp_path / "base")
    given = {k: v for k, v in rig.batch(ENCODER).items() if k != "labels"}
    folders = []
    for name, settings in EXPORTS.items():
        model = exported(bert(), **settings).float()
        folders.append(str(tmp_path / name))
        files.write(tmp_path / name, *jelly.to_lora(model))
        given[folders[-1]] = outputs(model)
    save_file(given, tmp_path / "given.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(tmp_path), *folders],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[1:] == ["['graftlab']"]
