"""What a run of a study measures beside its scores: the last step's, and what the adapter costs."""

import json

import pytest
import torch
from accelerate import Accelerator
from tiny_runs import TWELVE_STEPS, carry_out, write_task

from graftlab import config, runfile
from graftlab.runs import costs, prediction, session
from graftlab.runs.options import Options

COMPARED = Options(quiet=True, compared=True)
# a rate at which the best checkpoint is not the last
EARLY = {"training": {"learning_rate": 0.3, "evaluate_every": 1}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("last")
    alone = carry_out(folder / "alone", EARLY)
    compared = carry_out(folder / "compared", EARLY, COMPARED)
    last = carry_out(
        folder / "last", {"training": {**EARLY["training"], "select": "last"}}, COMPARED
    )
    return alone, compared, last


@pytest.mark.slow
def test_the_last_step_is_scored_beside_the_best_one(runs):
    _, compared, last = runs
    result, wanted = compared.read_result(), last.read_result()
    assert result["selected_step"] < result["steps"] == result["last"]["step"]
    assert result["last"]["metrics"] == wanted["metrics"]
    for split in ("validation", "test"):
        assert prediction.read(compared.last_predictions(split)) == prediction.read(
            last.predictions(split)
        )


@pytest.mark.slow
def test_where_the_last_step_counts_nothing_is_scored_twice(runs):
    _, _, last = runs
    assert "last" not in last.read_result()
    assert not last.last_predictions("test").exists()


@pytest.mark.slow
def test_what_is_measured_beside_changes_nothing_of_the_run(runs):
    alone, compared, _ = runs
    for name in ("metrics.jsonl", "predictions/test.jsonl", "adapter/adapter_model.safetensors"):
        assert (alone.path / name).read_bytes() == (compared.path / name).read_bytes()
    assert alone.read_result()["metrics"] == compared.read_result()["metrics"]
    assert "costs" not in alone.read_result()


@pytest.mark.slow
def test_costs_are_those_of_the_files_and_of_the_steps(runs):
    _, compared, _ = runs
    found = compared.read_result()["costs"]
    files = [path for path in compared.adapter.iterdir() if path.is_file()]
    assert found["adapter_bytes"] == sum(path.stat().st_size for path in files)
    assert min(found["inference_seconds"], found["merged_inference_seconds"]) > 0
    assert found["training_flops"] > 0
    assert json.loads(compared.result.read_text())["costs"] == found


@pytest.mark.slow
def test_a_method_that_cannot_be_merged_has_no_time_merged(tmp_path):
    task = {**TWELVE_STEPS["task"], **write_task(tmp_path / "data")}
    values = {**TWELVE_STEPS, "method": {"name": "prompt", "num_tokens": 2}, "task": task}
    values |= {"paths": {"runs": str(tmp_path / "runs")}}
    (tmp_path / "run.yaml").write_text(config.dump(values), encoding="utf-8")
    file = runfile.resolve(config.read(tmp_path / "run.yaml", ["training.max_steps=1"]))
    found = session.run(file, options=COMPARED).read_result()["costs"]
    assert found["merged_inference_seconds"] is None
    assert found["inference_seconds"] > 0


class Lines:
    """A task whose loss is the sum of what a linear layer puts out."""

    def batch(self, split, indices, epoch):
        return {"x": torch.ones(len(indices), 7)}

    def loss(self, model, batch):
        return model(batch["x"]).sum()


@pytest.mark.parametrize(("trains", "products"), [((False, True), 3), ((True, True), 5)])
def test_operations_are_counted_as_products_of_matrices(trains, products):
    """Forward two; back one for each weight that trains, and one for the input of the second layer if the
    first trains: 2 N I O operations each."""
    model = torch.nn.Sequential(torch.nn.Linear(7, 7), torch.nn.Linear(7, 7))
    for layer, own in zip(model, trains, strict=True):
        layer.requires_grad_(own)
    found = costs.step_flops(model, Lines(), range(5), Accelerator(cpu=True))
    assert found == products * 2 * 5 * 7 * 7
    assert all(weight.grad is None for weight in model.parameters())
