"""What a checkpoint holds and a resume gives back, on a model of two numbers: to the bit."""

import signal

import pytest
import torch
from plain_loops import Scores, begun, fields, train

from graftlab.contracts import Hook
from graftlab.errors import Stopped
from graftlab.rundir.lines import read_lines
from graftlab.training import checkpoint


def test_a_checkpoint_says_what_a_resume_compares(tmp_path):
    given = {"name": "as the run file has it"}
    config = fields(max_steps=5, save_every=2, micro_batch_size=3)
    _, run = train(tmp_path / "run", config, config=given, environment={"torch": "2"})
    text = run.metrics.read_bytes()
    for step in (0, 2, 4, 5):
        state = checkpoint.load(run.checkpoints / checkpoint.name(step)).state
        facts = {
            "environment": {"torch": "2"},
            "config": given,
            "num_steps": 5,
            "world": 1,
            "micro_batch_size": 3,
        }
        assert {name: state[name] for name in facts} == facts
        assert text[: state["metrics_bytes"]].count(b"\n") == step
        assert state["position"]["step"] == step


def test_gone_on_with_from_any_checkpoint_it_is_the_run_that_was_never_left(tmp_path):
    config = fields(
        max_steps=6, save_every=1, evaluate_every=2, logging_every=4, optimizer={"name": "adamw"},
        schedule={"name": "plateau", "patience": 0, "factor": 0.5},
    )  # fmt: skip
    parts = {"best_by": "accuracy", "higher_is_better": True}
    values = (0.3, 0.2, 0.1)
    whole, run = train(tmp_path / "run", config, evaluate=Scores(*values), **parts)
    lines, weights = run.metrics.read_bytes(), whole.model.state_dict()
    for step in range(6):
        saved = checkpoint.load(run.checkpoints / checkpoint.name(step))
        again = Scores(*values[step // 2 :])
        with begun(tmp_path / "run", config, evaluate=again, **parts) as loop:
            loop.restore(saved)
            assert loop.position.step == step
            clocked = run.timing.read_bytes()
            before = loop.save()  # what was put back is not written again
            assert before is None
            assert run.timing.read_bytes() == clocked
            loop.run()
        assert run.metrics.read_bytes() == lines
        torch.testing.assert_close(loop.model.state_dict(), weights, rtol=0, atol=0)
        assert loop.position == whole.position


def test_lines_that_are_lost_make_a_run_inexact(tmp_path):
    config = fields(save_every=2)
    _, run = train(tmp_path / "run", config)
    saved = checkpoint.load(run.checkpoints / checkpoint.name(4))
    run.metrics.write_text("")
    with begun(tmp_path / "run", config) as loop:
        loop.restore(saved)
    assert [note.kind for note in loop.position.not_exact] == ["lines_changed"]


def test_the_best_weights_come_back_at_the_end(tmp_path):
    config = fields(max_steps=3, evaluate_every=1)
    loop, run = train(
        tmp_path / "run", config, evaluate=Scores(0.1, 0.9, 0.5), best_by="accuracy",
        higher_is_better=True,
    )  # fmt: skip
    best = checkpoint.load(run.checkpoints / checkpoint.name(2)).tensors["trainable"]
    assert not torch.equal(loop.model.weight, best["weight"])
    loop.restore_best()
    torch.testing.assert_close(loop.model.state_dict(), dict(best), rtol=0, atol=0)


def test_a_signal_is_heeded_after_its_step_and_in_an_evaluation_before_the_next(tmp_path):
    class Asked(Hook):
        def on_step_start(self, step):
            if step == 2:
                loop.parts.signals.received = signal.SIGTERM

    def evaluate(model):
        raise Stopped("now", 143)

    config = fields(logging_every=5)
    with begun(tmp_path / "step", config, None, (Asked(),)) as loop, pytest.raises(Stopped):
        loop.run()
    run = loop.parts.run
    assert checkpoint.steps(run.checkpoints) == [0, 2]
    assert [row["examples"] for row in read_lines(run.timing) if "examples" in row] == [8]

    config = fields(evaluate_every=3)
    with begun(tmp_path / "at", config, evaluate=evaluate) as loop, pytest.raises(Stopped):
        loop.run()
    run = loop.parts.run
    assert checkpoint.steps(run.checkpoints) == [0, 3]
    saved = checkpoint.load(run.checkpoints / checkpoint.name(3))
    evaluated = []
    with begun(
        tmp_path / "at", config, evaluate=lambda _: evaluated.append(1) or {"loss": 1.0}
    ) as again:
        again.restore(saved)
        assert again.position.evaluation_pending
        again.run()
    assert len(evaluated) == 2  # of steps 3 and 6
    assert [r["step"] for r in run.read_metrics() if "validation/loss" in r] == [3, 6]
    assert not again.position.evaluation_pending
