"""What only AdaLoRA promises."""

import pytest
import torch
from pydantic import ValidationError

from graftlab.methods import adalora
from graftlab.testing import rig


def ranks(attached, family, num_steps):
    """Return the logged mean rank after every step, as the loop logs it."""
    (hook,) = attached.hooks
    seen = []
    observed = hook.after_optimizer_step
    hook.after_optimizer_step = lambda step: seen.append(observed(step)["adalora/rank"])
    rig.train(attached, family, steps=num_steps)
    return seen


@pytest.mark.quick("1", "2", "6")
@pytest.mark.parametrize("num_steps", [1, 2, 3, 6, 40])
def test_the_rank_falls_to_its_target_in_runs_of_any_length(encoder, num_steps):
    setting = rig.setting(encoder)
    setting = type(setting)(**{**vars(setting), "num_steps": num_steps})
    attached = adalora.attach(rig.backbone(encoder), adalora.Config(), setting)
    seen = ranks(attached, encoder, num_steps)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == 8
    if num_steps >= 3:
        assert seen[0] == 12


def test_skipped_allocations_are_made_up_for(attach, encoder):
    attached = attach("adalora")
    (hook,) = attached.hooks
    last = hook.config.total_step - hook.config.tfinal
    seen = []
    observed = hook.after_optimizer_step
    hook.after_optimizer_step = lambda step: seen.append(
        observed(step)["adalora/rank"] if step not in (3, 4, last) else None
    )
    rig.train(attached, encoder, steps=rig.NUM_STEPS)
    assert seen[-1] == 8


def test_the_orthogonality_term_is_pefts_own(attach, encoder):
    attached = attach("adalora", orthogonality=0.3)
    rig.train(attached, encoder)
    (hook,) = attached.hooks
    inputs = rig.batch(encoder)
    with torch.no_grad():
        with_term = attached.model(**inputs).loss  # peft adds its term where it is given labels
        without = torch.nn.functional.cross_entropy(
            attached.model(**{k: v for k, v in inputs.items() if k != "labels"}).logits,
            inputs["labels"],
        )
        (term,) = hook.loss_terms(1).values()
    torch.testing.assert_close(term, with_term - without, rtol=1e-5, atol=1e-6)
    assert list(hook.loss_terms(1)) == ["adalora/orthogonality"]


def test_the_file_keeps_the_directions_of_the_weights_and_not_of_the_last_allocation(
    attach, encoder, tmp_path
):
    attached = attach("adalora")
    rig.train(attached, encoder, steps=rig.NUM_STEPS)
    config = attached.model.peft_config["default"]
    for layer in adalora.lora_layers(attached.model).values():
        layer.lora_E["default"].data.fill_(0.1)  # as an earlier, best step may have them
    expected = rig.outputs(attached.model, encoder)
    before = {name: list(kept) for name, kept in config.rank_pattern.items()}
    adalora.save(attached.model, tmp_path)
    assert config.rank_pattern == before
    loaded = adalora.load(rig.backbone(encoder), adalora.Config(), tmp_path)
    torch.testing.assert_close(rig.outputs(loaded, encoder), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"target_rank": 12}, {"warmup_share": 0.6, "final_share": 0.5}]
)
def test_a_budget_that_cannot_fall_is_refused(settings):
    with pytest.raises(ValidationError):
        adalora.Config(**settings)


def test_a_field_of_the_schedule_is_refused_with_its_own_key():
    with pytest.raises(ValidationError, match=r"peft\.tinit.*method\.warmup_share"):
        adalora.Config(peft={"tinit": 5})
