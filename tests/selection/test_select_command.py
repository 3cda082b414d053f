"""`graftlab select`: what it prints, and whether its scores foretell what training at each layer gives."""

import json

import pytest
from faults import fault
from plugged_models import NUM_LAYERS, write_run
from typer.testing import CliRunner

from graftlab import cli
from graftlab.commands import select
from graftlab.errors import ConfigError
from graftlab.selection.agreement import agreement
from graftlab.study import layer_check


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A selection with its check: four runs of two steps."""
    folder = tmp_path_factory.mktemp("checked")
    path = write_run(folder)
    command = ["select", path, "--out", folder / "out", "--check", "--steps", 2, "--json"]
    return folder, command, invoke(*command)


@pytest.mark.slow
def test_with_json_the_selection_is_one_object(checked):
    folder, _, result = checked
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["selection"] == str(folder / "out")
    assert found["best_llm_layer"] in range(NUM_LAYERS)


@pytest.mark.slow
def test_the_check_trains_at_every_layer_and_compares_ranks(checked):
    folder, _, result = checked
    found = json.loads(result.stdout)
    check = found["check"]
    assert set(check["results"]) == {str(layer) for layer in range(NUM_LAYERS)}
    runs = sorted((folder / "out" / "check" / "runs").iterdir())
    trained = {}
    for run in runs:
        config, scores = (
            (run / "config.yaml").read_text(),
            json.loads((run / "result.json").read_text()),
        )
        layer = next(int(line.split()[1]) for line in config.splitlines() if " layer: " in line)
        trained[str(layer)] = scores["metrics"]["validation"]["accuracy"]["value"]
        assert scores["steps"] == 2
    assert check["results"] == trained
    expected = agreement(
        [found["effects"][layer] for layer in trained], list(trained.values()), check["seed"]
    )
    assert check["agreement"] == expected._asdict()
    best = max(trained.values())
    assert check["regret"]["chosen"] == best - trained[str(found["best_llm_layer"])]
    assert check["regret"]["last"] == best - trained[str(NUM_LAYERS - 1)]
    assert json.loads((folder / "out" / "check.json").read_text()) == check


@pytest.mark.slow
def test_a_second_check_repeats_no_run(checked):
    folder, command, first = checked
    runs = sorted((folder / "out" / "check" / "runs").glob("*/result.json"))
    before = [path.stat().st_mtime_ns for path in runs]
    again = invoke(*command)
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert [path.stat().st_mtime_ns for path in runs] == before


@pytest.mark.slow
def test_the_table_says_what_is_chosen_and_how_sure_that_is(checked):
    folder, _, result = checked
    found = json.loads(result.stdout)
    plain = invoke("select", folder / "plugged.yaml", "--out", folder / "out")
    assert plain.exit_code == 0, plain.output
    assert found["statement"] in plain.stdout
    assert "layer.yaml" in plain.stdout
    assert "is used again" in plain.stderr


@pytest.mark.parametrize(
    ("given", "expected"), [("3", "[3]"), ("0,4,8-11", "[0, 4, 8, 9, 10, 11]"), ("2-2", "[2]")]
)
def test_layers_are_given_as_numbers_and_ranges(given, expected):
    assert select._numbers(given) == expected


@pytest.mark.parametrize("given", ["", "a", "1,", "-1", "5-3", "1..3"])
def test_what_is_no_list_of_layers_is_refused(given):
    with pytest.raises(ConfigError, match="--layers"):
        select._numbers(given)


def selection(count, chosen=1):
    return {"layers": [{"layer": i} for i in range(count)], "best_llm_layer": chosen}


def test_a_subset_is_drawn_by_the_seed_and_has_the_chosen_and_the_last_layer():
    plans = [layer_check.Plan(10, 5, seed) for seed in range(6)]
    drawn = [tuple(layer_check.layers(selection(20), plan)) for plan in plans]
    assert all(len(layers) == 5 and {1, 19} <= {*layers} for layers in drawn)
    assert len({*drawn}) > 1
    assert drawn[0] == tuple(layer_check.layers(selection(20), plans[0]))
    last_is_chosen = layer_check.layers(selection(20, chosen=19), plans[0])
    assert len(last_is_chosen) == 5


def test_fewer_than_three_layers_are_not_ranked():
    for count, subset in ((2, None), (9, 2)):
        with pytest.raises(ConfigError, check=fault("too_few")):
            layer_check.layers(selection(count), layer_check.Plan(10, subset, 0))


def test_what_the_check_cannot_use_is_refused_before_anything_is_trained(tmp_path):
    path = write_run(tmp_path)
    out = tmp_path / "out"
    result = invoke("select", path, "--layers", "0,1", "--check", "--out", out, "--json")
    assert result.exit_code == 2
    [problem] = json.loads(result.stdout)["error"]["problems"]
    assert problem["kind"] == "too_few"
    assert not (tmp_path / "out").exists()
