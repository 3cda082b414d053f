"""What LoRA's settings promise."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faults import fault
from pydantic import ValidationError

from graftlab.adapters import files, low_rank
from graftlab.errors import ConfigError, ModelError, Refused
from graftlab.methods import lora
from graftlab.testing import rig


def test_lora_plus_gives_every_b_and_nothing_else_its_ratio(attach):
    attached = attach("lora", lora_plus_ratio=16)
    trainable = {n for n, p in attached.model.named_parameters() if p.requires_grad}
    assert set(attached.rates) == {n for n in trainable if ".lora_B." in n}
    assert set(attached.rates.values()) == {16}


def test_without_a_ratio_every_rate_is_the_same(attach):
    assert attach("lora").rates == {}


@pytest.mark.parametrize(("rslora", "expected"), [(False, 16 / 4), (True, 16 / math.sqrt(4))])
def test_the_correction_is_scaled_as_in_the_papers(attach, rslora, expected):
    model = attach("lora", rank=4, rslora=rslora).model
    up, down = next(iter(dict(lora.deltas(model)).values()))
    layer = model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
    torch.testing.assert_close(up, layer.lora_B.default.weight * expected)
    assert down.shape == (4, 32)


@pytest.mark.quick("pissa", "gaussian")
@pytest.mark.parametrize("init", ["gaussian", "orthogonal", "pissa", "olora", "eva"])
def test_every_start_is_the_backbone_trains_saves_and_turns_off(attach, encoder, init, tmp_path):
    attached = attach("lora", init=init, rank=4)
    plain = rig.outputs(rig.backbone(encoder).model, encoder)
    torch.testing.assert_close(rig.outputs(attached.model, encoder), plain, rtol=1e-4, atol=1e-5)
    reached = rig.train(attached, encoder)
    assert all(reached.values())
    trained = rig.outputs(attached.model, encoder)
    lora.save(attached.model, tmp_path)
    loaded = lora.load(rig.backbone(encoder), lora.Config(init=init, rank=4), tmp_path)
    assert torch.equal(rig.outputs(loaded, encoder), trained)
    assert json.loads((tmp_path / files.CONFIG).read_text())["init_lora_weights"] == init
    for model in (attached.model, loaded):
        with lora.off(model):
            assert torch.equal(rig.outputs(model, encoder), plain)


@pytest.mark.quick("pissa")
@pytest.mark.parametrize("init", ["orthogonal", "pissa", "olora", "eva"])
def test_a_resumed_run_computes_no_start_again(attach, encoder, init, monkeypatch):
    config = lora.Config(init=init, rank=4)
    first = attach("lora", init=init, rank=4)
    rig.train(first, encoder)
    restored = rig.setting(encoder, seed=9, restored=json.loads(json.dumps(dict(first.record))))
    if init != "orthogonal":  # whose QR of an (R, R) matrix of noise costs nothing
        for factorisation in ("svd", "qr"):
            monkeypatch.delattr(torch.linalg, factorisation)
    second = lora.attach(rig.backbone(encoder, head_seed=9), config, restored)
    names = {n for n, p in first.model.named_parameters() if p.requires_grad} | {*first.computed}
    state = {n: x for n, x in first.model.state_dict().items() if n in names}
    assert not second.model.load_state_dict(state, strict=False).unexpected_keys
    expected = rig.outputs(first.model, encoder)
    assert torch.equal(rig.outputs(second.model, encoder), expected)
    assert files.config_dict(second.model) == files.config_dict(first.model)


@pytest.mark.slow
def test_eva_shares_out_as_many_ranks_as_there_were(attach):
    attached = attach("lora", init="eva", rank=4)
    config = attached.model.peft_config["default"]
    num_layers = 13  # six in each of two BERT layers, and the pooler
    other = attached.record["rank_pattern"]
    assert sum(other.values()) + 4 * (len(config.target_modules) - len(other)) == 4 * num_layers


def test_eva_says_when_the_inputs_are_too_narrow(attach):
    with pytest.raises(ConfigError, match=r"is 20:.*for 40"):
        attach("lora", init="eva", rank=20)


def test_names_a_regex_and_all_linear_mean_the_layers_they_say(attach):
    def adapted(**settings):
        return {n.removesuffix(".weight") for n, _ in lora.deltas(attach("lora", **settings).model)}

    queries = {f"bert.encoder.layer.{i}.attention.self.query" for i in (0, 1)}
    assert adapted(targets=("query",)) == queries
    assert adapted(targets=r".*\.query") == queries
    assert adapted(targets=("1.attention.self.query",)) == {max(queries)}
    everything = adapted()
    assert len(everything) == 13
    assert "classifier" not in everything


def test_targets_that_match_nothing_are_refused_with_the_names_there_are(attach):
    with pytest.raises(ConfigError) as error:
        attach("lora", targets=("querry",))
    assert "of BertForSequenceClassification" in str(error.value)
    assert "'query'" in str(error.value)
    assert "named: dense, key, query, value" in str(error.value)


def test_one_lost_name_among_several_is_refused_too(attach):
    with pytest.raises(ConfigError, match="valu"):
        attach("lora", targets=("query", "valu"))


def test_a_regex_that_is_none_is_refused(attach):
    with pytest.raises(ConfigError, check=fault("not_allowed")):
        attach("lora", targets="(query")


def test_a_rank_above_the_layers_own_is_refused_with_the_range(attach):
    with pytest.raises(ConfigError, match=r"is 33.*method.rank to 1\.\.32"):
        attach("lora", rank=33)


def test_a_misspelt_peft_field_is_refused_with_the_nearest():
    with pytest.raises(ValidationError, match="'layers_to_transform'"):
        lora.Config(peft={"layer_to_transform": [0]})


def test_a_peft_field_that_has_a_key_of_its_own_is_refused_with_that_key():
    with pytest.raises(ValidationError, match=r"peft\.r is set from method\.rank"):
        lora.Config(peft={"r": 4})


def test_a_peft_field_reaches_peft(attach):
    model = attach("lora", peft={"rank_pattern": {"query": 2}}).model
    ranks = {n: down.shape[0] for n, (_, down) in lora.deltas(model)}
    assert {r for n, r in ranks.items() if "query" in n} == {2}
    assert {r for n, r in ranks.items() if "query" not in n} == {8}


def test_peft_fields_are_checked_without_importing_peft():
    code = (
        "import sys; from graftlab.methods import lora; lora.Config(peft={'bias': 'none'});"
        "sys.exit(any(m in sys.modules for m in ('peft', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_start_from_begins_where_the_earlier_run_ended(attach, encoder, tmp_path):
    for init in ("default", "pissa"):
        first = attach("lora", init=init)
        rig.train(first, encoder)
        lora.save(first.model, tmp_path / init / "adapter")
        second = attach("lora", init=init, start_from=tmp_path / init)
        expected = rig.outputs(first.model, encoder)
        assert torch.equal(rig.outputs(second.model, encoder), expected)


def test_start_from_without_the_head_begins_with_a_new_one(attach, encoder, tmp_path):
    first = attach("lora")
    rig.train(first, encoder)
    lora.save(first.model, tmp_path)
    second = attach("lora", start_from=tmp_path, start_head=False)
    ours, theirs = files.tensors(second.model), files.tensors(first.model)
    new = files.tensors(attach("lora").model)
    head = {n for n in ours if "classifier" in n}
    assert len(head) == 2
    assert all(torch.equal(ours[n], (new if n in head else theirs)[n]) for n in ours)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [({"rank": 4}, "refused"), ({"init": "pissa"}, "other_start")],
)
def test_start_from_another_kind_of_adapter_is_refused(attach, encoder, tmp_path, settings, kind):
    lora.save(attach("lora").model, tmp_path)
    with pytest.raises(ModelError, check=fault(kind)):
        attach("lora", start_from=tmp_path, **settings)


def test_start_from_an_adapter_of_another_backbone_is_refused_by_hash_or_else_by_name(
    encoder, tmp_path
):
    setting, config = rig.setting(encoder), lora.Config(start_from=tmp_path / "adapter")

    def backbone(**record):
        return replace(rig.backbone(encoder), record=record)

    theirs = {"source": "one", "sha256": {"a": "1"}}
    lora.save(lora.attach(backbone(**theirs), lora.Config(), setting).model, tmp_path / "adapter")
    with pytest.raises(ModelError, check=fault("other_backbone")):
        lora.attach(backbone(source="two", sha256={"a": "1"}), config, setting)
    lora.attach(backbone(source="one", sha256={"a": "1"}), config, setting)
    (tmp_path / "environment.json").write_text(json.dumps({"backbone": theirs}))
    lora.attach(backbone(source="two", sha256={"a": "1"}), config, setting)  # a copy elsewhere
    with pytest.raises(ModelError, match=r"sha256.*'1'.*'2'"):
        lora.attach(backbone(source="one", sha256={"a": "2"}), config, setting)


def test_start_from_nothing_is_found_before_anything_is_loaded(tmp_path):
    (problem,) = lora.check(lora.Config(start_from=tmp_path / "none"), "encoder", "bert", False)
    assert (problem.kind, problem.place.key) == ("no_adapter", ("start_from",))


def test_a_pickled_adapter_is_refused(encoder, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(Refused, match="is a pickle"):
        lora.load(rig.backbone(encoder), lora.Config(), tmp_path)


def test_an_adapter_of_another_backbone_is_refused(attach, tmp_path):
    lora.save(attach("lora").model, tmp_path)
    with pytest.raises(ModelError, check=fault("misfit")):
        lora.load(rig.backbone(rig.FAMILIES["decoder"]), lora.Config(), tmp_path)


def test_a_truncated_adapter_is_refused(attach, encoder, tmp_path: Path):
    lora.save(attach("lora").model, tmp_path)
    weights = tmp_path / files.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, check=fault("unreadable")):
        lora.load(rig.backbone(encoder), lora.Config(), tmp_path)


def test_layers_to_transform_picks_layers_by_their_number(attach):
    """peft heeds the field for last names of layers alone, and the targets that it is given are full ones."""
    model = attach("lora", peft={"layers_to_transform": [1]}).model
    adapted = list(low_rank.lora_layers(model))
    assert adapted
    assert {name.split(".layer.")[1].split(".")[0] for name in adapted} == {"1"}
