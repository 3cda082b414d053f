"""PEFT's own fields are tried on a small model for what the run asks, before the run's model is loaded."""

import json
from pathlib import Path

import pytest
from finished_runs import make_bert
from typer.testing import CliRunner

import graftlab
from graftlab import cli, config, runfile
from graftlab.errors import ConfigError
from graftlab.runs import trials
from graftlab.testing import examples

ALORA = {"alora_invocation_tokens": [35, 28]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("trials")
    examples.text_model(made / "llama", "decoder")
    make_bert(made / "bert")
    rows = ({"q": f"what is {i}", "a": f"it is {i}"} for i in range(24))
    (made / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = (f"text {i},{'ab'[i % 2]}\n" for i in range(24))
    (made / "classes.csv").write_text("text,label\n" + "".join(lines))
    return made


def run_file(folder, peft, model="llama", **sections):
    """Return the values of a run that passes `peft` on; sections are laid over."""
    tasks = {
        "llama": {
            "kind": "generation",
            "files": {"train": str(folder / "qa.jsonl")},
            "prompt": "{q}",
            "completion": " {a}",
            "metrics": ["perplexity"],
            "max_length": 64,
        },
        "bert": {"kind": "classification", "files": {"train": str(folder / "classes.csv")}},
    }
    values = {
        "name": "tried",
        "backbone": {"model": str(folder / model)},
        "task": {**tasks[model], "validation_share": 0.25},
        "method": {"name": "lora", "rank": 4, "peft": peft},
        "training": {"max_steps": 1, "batch_size": 4},
        "paths": {"runs": str(folder / "runs")},
    }
    return config.merge(values, sections)


def tried(folder, peft, model="llama", **sections):
    document = config.given(run_file(folder, peft, model, **sections))
    return trials.of_fields(runfile.resolve(document))


CHECKPOINTING = {"training": {"gradient_checkpointing": True}}
PACKED = {"task": {"packing": "packed"}}
PADDING_FREE = {"task": {"packing": "padding_free"}}


@pytest.mark.quick("lora-{}")
@pytest.mark.parametrize("asked", [{}, CHECKPOINTING, PACKED, PADDING_FREE], ids=str)
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_fields_that_work_with_what_the_run_asks_are_let_through(folder, method, asked):
    fields = {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 3}}
    assert tried(folder, fields, method={"name": method}, **asked) == ()


@pytest.mark.quick("*gradient_checkpointing*", "*megatron*", "*layers_to_transform*")
@pytest.mark.parametrize(
    ("peft", "asked", "said"),
    [
        (ALORA, PACKED, "task.packing"),
        (ALORA, PADDING_FREE, "task.packing"),
        (ALORA, CHECKPOINTING, "training.gradient_checkpointing"),
        ({"layer_replication": [[0, 2], [1, 2]]}, {}, "does not work when it is turned off"),
        ({"kasa_config": {}}, {}, "does not work when it is turned off"),
        ({"megatron_config": {"a": 1}}, {}, "megatron"),
        ({"layers_to_transform": [99]}, {}, "layers_to_transform"),
    ],
    ids=str,
)
def test_fields_that_do_not_are_refused_with_what_they_do_not_fit(folder, peft, asked, said):
    with pytest.raises(ConfigError) as refused:
        tried(folder, peft, **asked)
    assert said in str(refused.value)
    assert next(iter(peft)) in str(refused.value)


@pytest.mark.quick("*lora_bias*")
@pytest.mark.parametrize("peft", [ALORA, {"lora_bias": True}], ids=str)
def test_an_adapter_that_cannot_be_merged_is_said_and_trains_all_the_same(folder, peft):
    assert [note.kind for note in tried(folder, peft)] == ["peft_not_merged"]


@pytest.mark.quick("*use_qalora*")
@pytest.mark.parametrize(
    "peft",
    [{"loftq_config": {"loftq_bits": 4}}, {"exclude_modules": ["no_layer"]}, {"use_qalora": True}],
    ids=str,
)
def test_a_field_that_does_nothing_here_is_said(folder, peft):
    (note,) = tried(folder, peft)
    assert (note.kind, note.fields["field"]) == ("peft_no_effect", next(iter(peft)))


@pytest.mark.slow
def test_a_start_that_looks_at_data_is_tried_on_made_up_ones(folder):
    assert tried(folder, {"alpha_pattern": {"q_proj": 3}}, method={"init": "eva"}) == ()


@pytest.mark.slow
def test_biases_train_in_the_adapter_or_not_at_all(folder):
    with pytest.raises(ConfigError, match="'bias': 'all'"):
        tried(folder, {"bias": "all"}, "bert")
    assert tried(folder, {"lora_bias": True}, "bert") == ()  # its linear layers have biases


@pytest.mark.slow
def test_weights_of_4_bits_are_tried_as_such(folder):
    pytest.importorskip("bitsandbytes")
    bits = {"backbone": {"quantization": {"bits": 4}}}
    assert tried(folder, {"rank_pattern": {"q_proj": 3}}, **bits) == ()


def test_without_fields_nothing_is_tried(folder, monkeypatch):
    monkeypatch.setattr(trials, "make", None)
    assert tried(folder, {}) == ()


def test_a_loss_that_peft_leaves_to_the_script_is_refused_before_anything_is_tried(folder):
    with pytest.raises(ConfigError, match=r"monteclora_config .*variational loss"):
        tried(folder, {"monteclora_config": {}})


def test_check_and_run_refuse_alike_and_the_run_leaves_nothing_behind(folder):
    path = Path(folder / "refused.yaml")
    path.write_text(config.dump(run_file(folder, ALORA, **PACKED)))
    checked = CliRunner().invoke(cli.app, ["check", str(path)])
    assert (checked.exit_code, "task.packing" in checked.stderr) == (2, True)
    with pytest.raises(ConfigError, match=r"task\.packing"):
        graftlab.run(path)
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_check_shows_what_cannot_be_done_afterwards(folder):
    path = Path(folder / "noted.yaml")
    path.write_text(config.dump(run_file(folder, {"lora_bias": True})))
    shown = CliRunner().invoke(cli.app, ["check", str(path), "--json"])
    assert "peft_not_merged" in {note["kind"] for note in json.loads(shown.stdout)["notes"]}
