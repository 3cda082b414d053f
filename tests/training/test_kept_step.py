"""The model at a kept step: what the run recorded there, from Python and from the commands."""

import json
import shutil

import pytest
import tiny_runs
from typer.testing import CliRunner

import graftlab
from graftlab import cli, inference
from graftlab.errors import CheckpointError, ConfigError
from graftlab.rundir.run import Run
from graftlab.runs import evaluation, session
from graftlab.testing import resume


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


METHODS = {
    "adalora": {"name": "adalora", "initial_rank": 4, "target_rank": 2, "dropout": 0.1},
    "jelly": {"name": "jelly", "mode": "seq2par", "switch_step": 6},  # another form from there on
}


@pytest.fixture(scope="module", params=METHODS.values(), ids=METHODS)
def run(request, tmp_path_factory):
    """A run with hooks of the method and of the file, and every second step kept."""
    changes = {
        "hooks": ["norms"],
        "method": request.param,
        "training": {"keep_checkpoints": 99, "save_every": 2},
    }
    file = resume.run_file(tmp_path_factory.mktemp("kept"), changes)
    return session.run(file, options=tiny_runs.quiet())


def recorded(run, step):
    return next(
        line for line in run.read_metrics() if line["step"] == step and "validation/loss" in line
    )


@pytest.mark.quick("adalora-*")
@pytest.mark.parametrize("step", [4, 8, 12])
def test_its_scores_are_those_that_the_run_recorded(run, step):
    adapted = graftlab.load(run.path, "cpu", step=step)
    rows, scores = adapted.evaluate("validation")
    assert evaluation.mean_loss(rows) == recorded(run, step)["validation/loss"]
    for name, score in scores.items():
        assert score.value == recorded(run, step)[f"validation/{name}"]


@pytest.mark.quick("adalora")
def test_a_kept_step_is_another_model_than_the_last_one(run):
    [early] = inference.load(run.path, "cpu", 2).predict("fine glad")
    [late] = inference.load(run.path, "cpu", 12).predict("fine glad")
    assert early["probabilities"] != late["probabilities"]


@pytest.mark.quick("adalora")
def test_a_step_that_is_not_kept_is_refused_with_those_that_are(run):
    with pytest.raises(ConfigError) as caught:
        inference.load(run.path, "cpu", 5)
    assert "0, 2, 4, 6, 8, 10, 12" in str(caught.value)


@pytest.mark.quick("adalora")
def test_the_commands_take_the_step_and_keep_its_predictions_apart(run):
    before = run.predictions("validation").read_bytes()
    said = invoke("evaluate", run.path, "--split", "validation", "--step", 4, "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["loss"] == recorded(run, 4)["validation/loss"]
    assert found["predictions"] == str(run.predictions("validation-step-000004"))
    assert run.predictions("validation").read_bytes() == before
    answered = invoke("predict", run.path, "--input", "fine glad", "--step", 4)
    assert json.loads(answered.stdout) == inference.load(run.path, step=4).predict("fine glad")[0]
    refused = invoke("predict", run.path, "--input", "no/such/file.txt", "--step", 5)
    assert refused.exit_code == ConfigError.exit_code


@pytest.mark.slow
def test_a_run_that_was_killed_opens_at_its_kept_steps(tmp_path):
    file = tiny_runs.run_file(tmp_path)
    path = tmp_path / "killed"
    assert resume.killed_after(8, lambda: session.run(file, path, options=tiny_runs.quiet()))
    with pytest.raises(ConfigError):
        inference.load(path)
    assert inference.load(path, step=6).predict("fine glad")


@pytest.mark.quick("adalora")
def test_a_damaged_checkpoint_is_refused(run, tmp_path):
    copy = Run(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    weights = copy.checkpoints / "step-000004" / "trainable.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError):
        inference.load(copy.path, "cpu", 4)
    assert inference.load(copy.path, "cpu", 8).predict("fine glad")
