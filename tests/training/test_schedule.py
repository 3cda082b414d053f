"""Learning rates are those of transformers and torch at every step."""

import pytest
import torch
from transformers import get_scheduler

from graftlab.training.schedule import Config, Plateau, factor, warmup_steps

STEPS = 37


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(scheduler, num_steps):
    """Return the rate of each update, as a loop sees it that steps the scheduler after the optimizer."""
    found = []
    for _ in range(num_steps):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("warmup", [0, 5, 0.1, 37])
@pytest.mark.parametrize(
    ("name", "theirs", "arguments"),
    [
        ("constant", "constant_with_warmup", {}),
        ("linear", "linear", {}),
        ("cosine", "cosine", {}),
        ("cosine_with_restarts", "cosine_with_restarts", {"num_cycles": 3}),
    ],
)
def test_factors_are_those_of_transformers(name, theirs, arguments, warmup):
    config = Config(name=name, warmup=warmup, cycles=3)
    scheduler = get_scheduler(
        theirs, optimizer(), warmup_steps(config, STEPS), STEPS, scheduler_specific_kwargs=arguments
    )
    ours = [factor(step, STEPS, config) for step in range(1, STEPS + 1)]
    assert ours == pytest.approx(rates(scheduler, STEPS), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("every", "period"), [(4, 4), (0, STEPS // 3)])
def test_step_is_torchs_step_lr(every, period):
    config = Config(name="step", warmup=0, step_every=every, factor=0.3)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer(), step_size=period, gamma=0.3)
    ours = [factor(step, STEPS, config) for step in range(1, STEPS + 1)]
    assert ours == pytest.approx(rates(theirs, STEPS), rel=1e-12)


def test_step_counts_its_steps_after_the_warm_up_and_none_of_them_is_empty():
    drops = Config(name="step", warmup=2, step_every=3, factor=0.5)
    ours = [factor(step, STEPS, drops) for step in range(1, 10)]
    assert ours == [0, 0.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    each = Config(name="step", warmup=0, factor=0.5)
    for num_steps in (2, 3, 5):
        ours = [factor(step, num_steps, each) for step in range(1, num_steps + 1)]
        assert ours == [0.5**done for done in range(num_steps)]


@pytest.mark.parametrize("higher", [True, False])
def test_plateau_is_torchs_without_a_threshold(higher):
    values = [0.5, 0.6, 0.55, 0.6, 0.4, 0.61, 0.2, 0.2, 0.2, 0.2, 0.2, 0.9, 0.1, 0.1, 0.1]
    ours = Plateau(Config(name="plateau", factor=0.5, patience=2), higher)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer(), mode="max" if higher else "min", factor=0.5, patience=2, threshold=0, eps=0
    )
    for value in values:
        ours.update(value)
        theirs.step(value)
        assert ours.scale == pytest.approx(theirs.optimizer.param_groups[0]["lr"])
    again = Plateau(ours.config, higher)
    again.load_state_dict(ours.state_dict())
    assert vars(again) == vars(ours)


def test_an_undefined_value_is_no_improvement():
    plateau = Plateau(Config(name="plateau", factor=0.5, patience=0), True)
    plateau.update(0.5)
    plateau.update(None)
    assert plateau.scale == 0.5


def test_as_many_undefined_values_as_it_is_patient_for_change_nothing():
    plateau = Plateau(Config(name="plateau", factor=0.5, patience=1), True)
    scales = []
    for value in (None, None, 0.1, None, None, None, None):
        plateau.update(value)
        scales.append(plateau.scale)
    assert scales == [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_a_share_of_the_steps_is_rounded_up_and_whole_numbers_are_steps():
    assert warmup_steps(Config(warmup=0.06), 100) == 6
    assert warmup_steps(Config(warmup=0.06), 101) == 7
    assert warmup_steps(Config(warmup=1), 100) == 1
