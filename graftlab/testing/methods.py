"""The promises of every method, over all registered names and every kind of backbone that it fits.

Where a method is excused from a promise, the test is skipped with the reason that it gives.
"""

import copy
from pathlib import Path

import pytest
import torch

from graftlab import registry
from graftlab.contracts import Attached, Method
from graftlab.testing import rig

CASES = [(name, family) for name in registry.names("methods") for family in rig.FAMILIES]
every = pytest.mark.parametrize(
    ("name", "family"), CASES, ids=[f"{name}-{family}" for name, family in CASES]
)


def _case(name: str, family: str, promise: str | None = None) -> tuple[Method, rig.Family]:
    """Return the method and the backbone; skips where it does not fit, or does not promise that."""
    method, fitted = registry.find("methods", name), rig.FAMILIES[family]
    if why := rig.misfit(name, fitted):
        pytest.skip(f"{name} does not fit {family}: {why}")
    if promise and (why := method.PROMISES.excuses().get(promise)):
        pytest.skip(f"{name} is excused from {promise}: {why}")
    return method, fitted


def _attach(name: str, family: rig.Family, seed: int = 0) -> Attached:
    return registry.find("methods", name).attach(
        rig.backbone(family), rig.config(name), rig.setting(family, seed)
    )


def _plain(family: rig.Family, head_seed: int = 0) -> torch.Tensor:
    return rig.outputs(rig.backbone(family, head_seed).model, family)


def _close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Assert equality up to the rounding of float32 sums in another order, through a few layers."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", registry.names("methods"))
def test_a_method_has_what_it_promises_and_a_reason_for_what_it_does_not(name: str) -> None:
    method = registry.find("methods", name)
    promised = method.PROMISES
    for promise, function in (("turns_off", "off"), ("mergeable", "merge")):
        given = getattr(type(method), function) is not getattr(Method, function)
        assert given == bool(getattr(promised, promise)), function
    unfit = (promised.not_backbones, promised.not_architectures, promised.not_problems)
    reasons = [*promised.excuses().values(), *(why for found in unfit for why in found.values())]
    assert [why for why in reasons if not why.strip() or why.strip()[-1] == "."] == []


@every
def test_an_attached_model_is_the_backbone_at_the_start(name: str, family: str) -> None:
    _, fitted = _case(name, family, "starts_unchanged")
    model = _attach(name, fitted).model
    _close(rig.outputs(model, fitted), _plain(fitted))


@every
def test_after_two_steps_all_that_trains_has_had_a_gradient_and_the_rest_has_not_moved(
    name: str, family: str
) -> None:
    _, fitted = _case(name, family)
    attached = _attach(name, fitted)
    frozen = {n: p for n, p in attached.model.named_parameters() if not p.requires_grad}
    before = {n: p.detach().clone() for n, p in frozen.items()}
    reached = rig.train(attached, fitted, steps=2)
    assert reached, "nothing trains"
    assert [n for n, had in reached.items() if not had] == []
    assert [n for n, p in frozen.items() if p.grad is not None] == []
    assert [n for n, p in frozen.items() if not torch.equal(p, before[n])] == []


@every
def test_nothing_of_the_backbone_trains_but_its_head(name: str, family: str) -> None:
    method, fitted = _case(name, family, "freezes_backbone")
    backbone = rig.backbone(fitted)
    own = {id(parameter): n for n, parameter in backbone.model.named_parameters()}
    attached = method.attach(backbone, rig.config(name), rig.setting(fitted))
    trained = [own[id(p)] for p in attached.model.parameters() if p.requires_grad and id(p) in own]
    assert [n for n in trained if not n.startswith(backbone.head)] == []


@every
def test_a_step_changes_the_loss(name: str, family: str) -> None:
    _, fitted = _case(name, family)
    attached = _attach(name, fitted)
    before = rig.loss(attached.model.eval(), fitted).item()
    rig.train(attached, fitted, steps=1)
    assert rig.loss(attached.model, fitted).item() != before


@every
def test_what_trains_is_float32_on_a_backbone_of_lower_precision(name: str, family: str) -> None:
    method, fitted = _case(name, family)
    backbone = rig.backbone(fitted)
    backbone.model.to(torch.bfloat16)
    model = method.attach(backbone, rig.config(name), rig.setting(fitted)).model
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


@every
def test_save_and_load_give_the_same_outputs(name: str, family: str, tmp_path: Path) -> None:
    method, fitted = _case(name, family)
    attached = _attach(name, fitted)
    rig.train(attached, fitted, steps=rig.NUM_STEPS)
    expected = rig.outputs(attached.model, fitted)
    method.save(attached.model, tmp_path)
    loaded = method.load(rig.backbone(fitted), rig.config(name), tmp_path)
    assert not loaded.training
    actual = rig.outputs(loaded, fitted)
    if method.PROMISES.reloads_exactly:
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    else:
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@every
def test_what_is_saved_again_after_loading_is_the_same_bytes(
    name: str, family: str, tmp_path: Path
) -> None:
    method, fitted = _case(name, family)
    attached = _attach(name, fitted)
    rig.train(attached, fitted, steps=rig.NUM_STEPS)
    method.save(attached.model, tmp_path / "first")
    loaded = method.load(rig.backbone(fitted), rig.config(name), tmp_path / "first")
    method.save(loaded, tmp_path / "second")
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()}
        for folder in ("first", "second")
    )
    assert first == second


@every
def test_merging_changes_nothing(name: str, family: str) -> None:
    method, fitted = _case(name, family, "mergeable")
    if fitted.bits:
        pytest.skip(
            "a change of 4-bit weights is merged into what they are read as: graftlab merge"
        )
    attached = _attach(name, fitted)
    rig.train(attached, fitted)
    expected = rig.outputs(attached.model, fitted)
    merged = method.merge(attached.model)
    _close(rig.outputs(merged, fitted), expected)
    assert type(merged) is type(rig.backbone(fitted).model)


@every
def test_turned_off_it_is_the_backbone_bit_for_bit_and_on_again_itself(
    name: str, family: str
) -> None:
    method, fitted = _case(name, family, "turns_off")
    attached = _attach(name, fitted)
    rig.train(attached, fitted)
    adapted = rig.outputs(attached.model, fitted)
    with method.off(attached.model):
        turned_off = rig.outputs(attached.model, fitted)
    torch.testing.assert_close(turned_off, _plain(fitted), rtol=0, atol=0)
    torch.testing.assert_close(rig.outputs(attached.model, fitted), adapted, rtol=0, atol=0)
    assert not torch.equal(turned_off, adapted)


@every
def test_a_loaded_adapter_turns_off_too(name: str, family: str, tmp_path: Path) -> None:
    method, fitted = _case(name, family, "turns_off")
    attached = _attach(name, fitted)
    rig.train(attached, fitted)
    method.save(attached.model, tmp_path)
    loaded = method.load(rig.backbone(fitted), rig.config(name), tmp_path)
    with method.off(loaded):
        turned_off = rig.outputs(loaded, fitted)
    torch.testing.assert_close(turned_off, _plain(fitted), rtol=0, atol=0)


@every
def test_the_seed_fixes_everything_and_the_runs_own_randomness_stays(
    name: str, family: str
) -> None:
    _, fitted = _case(name, family)
    states = []
    for state_of_the_run in (1, 2):
        torch.manual_seed(state_of_the_run)
        before = torch.get_rng_state()
        states.append(_attach(name, fitted, seed=3).model.state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert list(states[0]) == list(states[1])
    assert [n for n in states[0] if not torch.equal(states[0][n], states[1][n])] == []


@every
def test_a_resumed_run_attaches_alike_without_computing(name: str, family: str) -> None:
    method, fitted = _case(name, family)
    first = _attach(name, fitted)
    rig.train(first, fitted)
    kept = {n for n, p in first.model.named_parameters() if p.requires_grad} | {*first.computed}
    state = {n: tensor for n, tensor in first.model.state_dict().items() if n in kept}
    assert set(state) == kept
    restored = rig.setting(fitted, seed=9, restored=copy.deepcopy(dict(first.record)))
    second = method.attach(rig.backbone(fitted, head_seed=9), rig.config(name), restored)
    assert second.computed == first.computed
    assert second.record == first.record
    assert second.rates == first.rates
    second.model.load_state_dict(state, strict=False)
    expected = rig.outputs(first.model, fitted)
    torch.testing.assert_close(rig.outputs(second.model, fitted), expected, rtol=0, atol=0)
    if method.PROMISES.turns_off:
        with method.off(second.model):
            turned_off = rig.outputs(second.model, fitted)
        torch.testing.assert_close(turned_off, _plain(fitted), rtol=0, atol=0)


@every
def test_hooks_go_on_from_what_they_have_saved(name: str, family: str) -> None:
    _, fitted = _case(name, family)
    first = _attach(name, fitted)
    if not first.hooks:
        pytest.skip(f"{name} has no hooks")
    rig.train(first, fitted, steps=3)
    second = _attach(name, fitted)
    # of 4-bit weights the scales have names in it that none but bitsandbytes can load
    second.model.load_state_dict(first.model.state_dict(), strict=not fitted.bits)
    rig.start(second, torch.optim.SGD(second.model.parameters()))
    for ours, theirs in zip(second.hooks, first.hooks, strict=True):
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for attached in (first, second):
        torch.manual_seed(0)
        trainable = [p for p in attached.model.parameters() if p.requires_grad]
        rig.loss(attached.model, fitted).backward()
        torch.optim.SGD(trainable, lr=0.1).step()
    logged = [
        [hook.after_optimizer_step(4) for hook in attached.hooks] for attached in (first, second)
    ]
    assert logged[0] == logged[1]
    expected = rig.outputs(first.model, fitted)
    torch.testing.assert_close(rig.outputs(second.model, fitted), expected, rtol=0, atol=0)


@every
def test_changes_of_the_weights_add_up_to_the_merged_model(name: str, family: str) -> None:
    method, fitted = _case(name, family)
    if method.deltas is None:
        pytest.skip(f"{name} has no deltas")
    if fitted.bits:
        pytest.skip(
            "a change of 4-bit weights is merged into what they are read as: graftlab merge"
        )
    attached = _attach(name, fitted)
    rig.train(attached, fitted)
    deltas = {
        n: d[0] @ d[1] if isinstance(d, tuple) else d for n, d in method.deltas(attached.model)
    }
    backbone = rig.backbone(fitted)
    before = dict(backbone.model.named_parameters())
    merged = dict(method.merge(attached.model).named_parameters())
    assert deltas
    for weight, value in merged.items():
        if not weight.startswith(backbone.head or ("no head",)):
            change = deltas.get(weight, torch.zeros(()))
            _close(value, before[weight] + change)


@every
def test_as_plain_lora_it_gives_the_same_outputs_on_the_untouched_backbone(
    name: str, family: str, tmp_path: Path
) -> None:
    method, fitted = _case(name, family)
    if method.to_lora is None:
        pytest.skip(f"{name} has no exact form as LoRA")
    from peft import PeftModel

    from graftlab.adapters import files

    attached = _attach(name, fitted)
    rig.train(attached, fitted, steps=rig.NUM_STEPS)
    expected = rig.outputs(attached.model, fitted)
    files.write(tmp_path, *method.to_lora(attached.model))
    plain = PeftModel.from_pretrained(rig.backbone(fitted).model, tmp_path)
    _close(rig.outputs(plain, fitted), expected)
