"""A run file's selection: what it writes, that it is done once, and goes on where it was killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from faults import fault
from plugged_models import CLASSES, NUM_LAYERS, rows, write_model, write_rows, write_run
from safetensors.torch import load_file

from graftlab import config, runfile
from graftlab.errors import ConfigError, DataError
from graftlab.rundir import files
from graftlab.runs import chosen_layer, layer_request, material, session
from graftlab.selection import hidden_states, results, survey
from graftlab.weights import layers, pretrained

FIGURES = ["component_correlations", "layer_scores", "layer_scores_heatmap", "pca_scatter"]
QUIET = session.Options(quiet=True)


def resolved(path, *overrides):
    return runfile.resolve(config.read(path, overrides))


def select(path, out, *overrides, **more):
    file = resolved(path, *overrides)
    return chosen_layer.select(file, material.load(file), out, **more)


@pytest.fixture(scope="module")
def selected(tmp_path_factory):
    """A run file, its selection and where it is; done once, with its states kept."""
    folder = tmp_path_factory.mktemp("selected")
    path = write_run(folder)
    return path, select(path, folder / "out", keep_states=True), folder / "out"


@pytest.fixture
def opened(monkeypatch):
    """Note every checkpoint that is opened, and the layers that are read of it."""
    found = []
    real_open, real_load = layers.open, layers.Checkpoint.load_layer

    def load(self, index, **more):
        found.append(index)
        return real_load(self, index, **more)

    monkeypatch.setattr(layers.Checkpoint, "load_layer", load)
    monkeypatch.setattr(layers, "open", real_open)
    return found


def test_everything_is_written_and_nothing_more(selected):
    _, found, out = selected
    figures = [f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")]
    expected = {*figures, results.NAME, results.TABLE, results.FRAGMENT, survey.KEPT}
    assert {path.name for path in out.iterdir()} == expected
    assert json.loads((out / results.NAME).read_text()) == found
    assert all((out / name).stat().st_size > 1000 for name in figures)


THREADS = """
import sys
from pathlib import Path
from threadpoolctl import threadpool_info
from graftlab import config, runfile
from graftlab.runs import chosen_layer, material
from graftlab.selection import survey

def blas():
    return sorted(i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas")

row, seen = survey.Scoring.row, []
def looked(*given):
    seen.append(blas())
    return row(*given)
survey.Scoring.row = looked
file = runfile.resolve(config.read(sys.argv[1]))
chosen_layer.select(file, material.load(file), Path(sys.argv[2]))
assert seen and all(set(threads) == {1} for threads in seen), seen
assert 2 in blas(), blas()
"""


@pytest.mark.slow
def test_scores_take_one_thread_of_blas_and_give_it_back(tmp_path):
    """Two that wait in turns with the layer's own made a selection take twice as long."""
    path = write_run(tmp_path)
    subprocess.run(
        [sys.executable, "-c", THREADS, str(path), str(tmp_path / "out")], check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_selection_json_has_the_fields_of_the_source_and_how_sure_it_is(selected):
    _, found, _ = selected
    assert found["n_samples"] == 30
    assert (found["n_pcs"], found["top_pc"], found["seed"]) == (4, 2, 0)
    assert (found["slm"], found["dataset"], found["task"]) == ("tiny", "plugged", "classification")
    assert found["examples"] == dict.fromkeys(sorted(CLASSES), 10)
    assert set(found["effects"]) == {str(layer) for layer in range(NUM_LAYERS)}
    best = max(found["effects"], key=found["effects"].get)
    assert found["best_llm_layer"] == int(best)
    assert sum(found["wins"].values()) == pytest.approx(1)
    assert found["statement"].startswith(f"Layer {best} of 0 to {NUM_LAYERS - 1} is chosen")


def test_the_table_has_the_scores_of_selection_json_by_layer(selected):
    _, found, out = selected
    with (out / results.TABLE).open() as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[:5] == ["layer", "probe", "fisher", "silhouette", "score"]
    for row, layer in zip(table, found["layers"], strict=True):
        assert int(row["layer"]) == layer["layer"]
        assert float(row["score"]) == layer["score"]
        assert float(row["mdl"]) == layer["scores"]["mdl"]["value"]
        low, high = (float(row[f"probe_{end}"]) for end in ("low", "high"))
        assert low <= float(row["probe"]) <= high


def test_the_fragment_makes_a_run_file_with_the_layer(selected, tmp_path):
    path, found, out = selected
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: {path}\n" + (out / results.FRAGMENT).read_text())
    assert resolved(mine).method.config.layer == found["best_llm_layer"]


def test_kept_states_are_those_of_the_training_examples_in_the_whole_model(selected):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, _, out = selected
    file = resolved(path)
    train = material.load(file).data.splits["train"]
    kept = load_file(out / survey.KEPT / "layer-0001.safetensors")
    llm = file.method.config.llm
    tokenizer, model = AutoTokenizer.from_pretrained(llm), AutoModelForCausalLM.from_pretrained(llm)
    found = set()
    for row in train:
        ids = torch.tensor([tokenizer(row["text"])["input_ids"]])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states[2][0]
        distance = (kept["states"] - states.mean(dim=0)).abs().max(dim=1).values
        found |= {
            int(i) for i in torch.nonzero(distance < 1e-5) if kept["labels"][i] == row["label"]
        }
    assert found == set(range(30))


def test_an_equal_selection_is_used_again_whatever_the_runs_seed(selected, tmp_path, opened):
    path, found, _ = selected
    said = []
    again = select(path, tmp_path / "again", "seed=7", "training.epochs=9", notify=said.append)
    assert again == found
    assert opened == []
    assert "nothing that matters has changed" in said[0]


def key(path, *overrides):
    file = resolved(path, *overrides)
    located = pretrained.locate(file.method.config.llm, weights=False)
    return layer_request.key(file, material.load(file), located)


@pytest.mark.quick("method*")
@pytest.mark.parametrize(
    "change",
    [
        "method.selection.samples=31",
        "method.pooling=mean",
        "backbone.width=32",
        "task.max_train_samples=59",
    ],
)
def test_what_matters_makes_another_selection(selected, change):
    path, found, _ = selected
    assert key(path) == found["key"]
    assert key(path, change) != found["key"]


def test_weights_that_were_written_anew_make_another_selection(tmp_path):
    path = write_run(tmp_path)
    first = key(path)
    assert key(path) == first
    for weights in (tmp_path / "llm").glob("*.safetensors"):
        os.utime(weights, ns=(1, 1))
    assert key(path) != first


def test_a_folder_with_another_selection_or_with_something_else_is_left_alone(selected, tmp_path):
    path, _, out = selected
    with pytest.raises(ConfigError, match="another selection"):
        select(path, out, "method.selection.samples=31")
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="no selection"):
        select(path, tmp_path)


@pytest.mark.slow
def test_a_subset_of_layers_is_scored_and_those_below_are_computed(selected, tmp_path, opened):
    path, found, _ = selected
    part = select(path, tmp_path / "part", "method.selection.layers=[2,1]")
    assert opened == [0, 1, 2]
    assert list(part["effects"]) == ["1", "2"]
    of = {layer["layer"]: layer["scores"] for layer in found["layers"]}
    assert {layer["layer"]: layer["scores"] for layer in part["layers"]} == {1: of[1], 2: of[2]}


KILLED = """
import sys
from graftlab import config, runfile
from graftlab.runs import chosen_layer, material
from graftlab.selection import hidden_states, survey
file = runfile.resolve(config.read(sys.argv[1]))
score, save = survey.Scoring.row, hidden_states.Stream._save
def row(self, number, *states):
    if number == 2:
        import time; time.sleep(600)
    return score(self, number, *states)
def saved(self, index, *states):
    save(self, index, *states)
    if index == 2:
        print("at layer 2", flush=True)  # its states are saved, its scores are not
survey.Scoring.row, hidden_states.Stream._save = row, saved
from pathlib import Path
chosen_layer.select(file, material.load(file), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_selection_that_was_killed_goes_on_and_comes_to_the_same(selected, tmp_path, opened):
    _, found, _ = selected
    path = write_run(tmp_path)
    command = [sys.executable, "-c", KILLED, path, tmp_path / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "at layer 2\n"
        process.send_signal(signal.SIGKILL)
    (folder,) = (tmp_path / "cache" / "selections").iterdir()
    assert (folder / hidden_states.STATES).is_file()
    assert len(list((folder / survey.ROWS).iterdir())) == 2
    again = select(path, tmp_path / "out")
    assert opened == [2, 3]
    assert again["layers"] == found["layers"]
    left = {path.name for path in folder.iterdir()}
    assert not left & {hidden_states.STATES, survey.ROWS}


WAITING = """
import sys
from pathlib import Path
from graftlab.rundir import files
with files.alone(Path(sys.argv[1]) / "lock"):
    print("in")
"""


@pytest.mark.slow
def test_two_processes_do_not_select_in_one_folder_at_once(tmp_path):
    import threading

    order = []
    with files.alone(tmp_path / "a" / "lock"):
        command = [sys.executable, "-c", WAITING, tmp_path / "a"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        waiting = threading.Thread(target=lambda: order.append(child.stdout.readline()))
        waiting.start()
        time.sleep(0.2)
        order.append("out")
    waiting.join(60)
    child.wait(60)
    assert order == ["out", "in\n"]


@pytest.mark.slow
def test_a_run_with_auto_is_the_run_with_the_layer_that_was_chosen(selected, tmp_path):
    path, found, _ = selected
    auto = session.run(resolved(path), tmp_path / "auto", options=QUIET)
    layer = f"method.layer={found['best_llm_layer']}"
    given = session.run(resolved(path, layer), tmp_path / "given", options=QUIET)
    assert auto.metrics.read_bytes() == given.metrics.read_bytes()
    assert config.read_yaml(auto.config)["method"]["layer"] == "auto"
    written = json.loads((auto.selection / results.NAME).read_text())
    assert written["best_llm_layer"] == found["best_llm_layer"]
    assert not given.selection.exists()


def test_a_run_tells_each_layers_scores_and_what_is_chosen(selected, tmp_path, capsys):
    path, found, _ = selected
    session.run(resolved(path, "training.max_steps=1"), tmp_path / "told")
    told = capsys.readouterr().err
    for layer in found["layers"]:
        assert f"layer {layer['layer']}: score {layer['score']:.3f}" in told
    assert found["statement"] in told


@pytest.mark.slow
def test_a_resumed_run_uses_the_choice_that_it_has_written(selected, tmp_path, opened):
    path, found, _ = selected
    other = (found["best_llm_layer"] + 1) % NUM_LAYERS
    out = tmp_path / "run"
    file = resolved(path)
    run = selecting_run(file, out, {**found, "best_llm_layer": other})
    assert opened == [other]
    donor = json.loads((run.adapter / "config.json").read_text())["donor"]
    assert donor["layers"] == [other]


def selecting_run(file, out, found):
    """Carry out a run that was killed after its selection, which said `found`."""
    from graftlab.rundir.run import Run

    run = Run(out)
    with run.lock():
        run.begin(config.dump(file.resolved))
    run.selection.mkdir()
    (run.selection / results.NAME).write_text(json.dumps(found))
    return session.resume(out, QUIET)


def test_trackers_are_shown_the_table_and_the_figures(selected):
    _, _, out = selected
    shown = chosen_layer.shown(out)
    assert shown.columns[:2] == ("layer", "score")
    assert [row[0] for row in shown.rows] == list(range(NUM_LAYERS))
    assert [path.stem for path in shown.pictures] == FIGURES
    assert chosen_layer.shown(out / "nowhere") is None


def broken(path, *overrides):
    file = resolved(path, *overrides)
    return chosen_layer.select(file, material.load(file), path.parent / "refused")


@pytest.mark.parametrize(
    ("overrides", "error", "kind"),
    [
        (["method.selection.layers=[1,4]"], ConfigError, "out_of_range"),
        (["method.selection.samples=8"], ConfigError, "too_few"),
        (["method.selection.folds=21"], DataError, "too_few"),
        (["method={name: head}"], ConfigError, "no_layer"),
        (["task.regression=true", "task.columns.label=score"], ConfigError, "refused"),
    ],
)
def test_what_cannot_be_selected_from_is_refused_before_a_layer_is_read(
    tmp_path, overrides, error, kind, opened
):
    path = write_run(tmp_path)
    scored = {
        split: [{**row, "score": i / 7} for i, row in enumerate(rows(60))] for split in ("train",)
    }
    write_rows(tmp_path / "data", scored)
    with pytest.raises(error, check=fault(kind)):
        broken(path, *overrides)
    assert opened == []


def test_a_task_of_one_class_is_refused(tmp_path):
    path = write_run(tmp_path)
    same = [{**row, "label": "good"} for row in rows(60)]
    data = {"train": same[:40], "validation": same[40:50], "test": same[50:]}
    write_rows(tmp_path / "data", data)
    with pytest.raises(DataError, match=r"all 40.*'good'"):
        broken(path, "task.labels=[good, bad]")


@pytest.mark.slow
def test_a_score_that_is_undefined_at_a_layer_is_flagged_and_the_layer_left_out(tmp_path, caplog):
    path = write_run(tmp_path, selection={"weights": {"probe": 1.0}, "depth_bias": 0.0})
    folder = write_model(tmp_path / "llm", shards=False)
    from safetensors.torch import save_file

    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if name.startswith("model.layers.3.") and tensor.ndim == 2:
            tensor *= torch.nan
    for stale in [*folder.glob("model-*"), *folder.glob("*.index.json")]:
        stale.unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = select(path, tmp_path / "out")
    assert found["left_out"] == [3]
    assert found["undefined"] == dict.fromkeys(found["undefined"], 1)
    assert len(found["undefined"]) == 7
    last = found["layers"][3]
    assert (last["score"], last["scores"]["probe"]["value"]) == (None, None)
    assert last["scores"]["probe"]["undefined"] == "states are not finite"
    assert "1 of 4" in found["statement"]
    assert any("layer 3:" in message for message in caplog.messages)
    assert np.isfinite([found["effects"][str(layer)] for layer in range(3)]).all()
