"""What would take days is refused at once: sizes that nothing has, templates that loop, long answers."""

import json
import random
import threading

import pytest

from graftlab import registry
from graftlab.adapters import files
from graftlab.backbones import tiny
from graftlab.contracts import Problem
from graftlab.errors import ConfigError, ModelError
from graftlab.tasks import _tokens
from graftlab.tasks.generation.chat import Renderer
from graftlab.tasks.generation.examples import Builder
from graftlab.tasks.generation.fields import Config
from graftlab.weights import pretrained

LOOPS = (
    "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = b %}{% endfor %}{% endfor %}"
)
TURNS = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize("config", [
    {"num_hidden_layers": 2_000_000},
    {"n_layer": 2_000_000},
    {"text_config": {"num_hidden_layers": 10**6}},
    {"depths": [2, 10**6]},
    {"num_local_experts": 10**6},
    {"encoder_layers": 1e9},
])  # fmt: skip
def test_a_model_of_millions_of_layers_is_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    with pytest.raises(ModelError) as caught:
        pretrained.read_config(tmp_path)
    assert caught.value.problems[0].place.file == str(tmp_path / "config.json")


def test_sizes_that_models_have_are_taken(tmp_path):
    known = {
        "num_hidden_layers": 1000,
        "num_experts": 2048,
        "vocab_size": 256_000,
        "layer_norm_eps": 1e-5,
    }
    known |= {
        "max_position_embeddings": 10**7,
        "intermediate_size": 10**5,
        "layer_types": ["full"] * 80,
    }
    (tmp_path / "config.json").write_text(json.dumps(known))
    assert pretrained.read_config(tmp_path) == known


@pytest.mark.parametrize(("method", "field"), [
    ("lora", "rank"), ("dora", "rank"), ("pissa", "rank"), ("jelly", "rank"), ("pifi", "rank"),
    ("adalora", "initial_rank"), ("adalora", "target_rank"),
    ("prompt", "num_tokens"), ("prefix", "num_tokens"),
])  # fmt: skip
def test_a_rank_of_millions_is_refused_where_it_stands(method, field):
    with pytest.raises(ValueError, match=field):
        registry.find("methods", method).Config.model_validate({field: 10**8})


@pytest.mark.parametrize("config", [{"r": 10**8}, {"r": 8, "rank_pattern": {"a": 10**8}}])
def test_an_adapter_of_such_a_rank_is_not_made(tmp_path, config):
    files.write(tmp_path, {"peft_type": "LORA", **config}, {})
    with pytest.raises(ModelError) as caught:
        files.read(tmp_path)
    assert caught.value.problems[0].given == 10**8


def tokenizer():
    return tiny.load(tiny.Config(), Problem("tokens", ()), 0).processor


def test_a_template_that_loops_is_left():
    with pytest.raises(ConfigError) as caught:
        Renderer(tokenizer(), LOOPS).text(TURNS)
    assert caught.value.problems[0].kind == "endless"


def test_a_template_that_loops_is_left_in_another_thread_too():
    found = []

    def render():
        try:
            Renderer(tokenizer(), LOOPS).text(TURNS)
        except ConfigError as error:
            found.append(error.problems[0].kind)

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert found == ["endless"]


class Counting:
    """A tokenizer that keeps the size of the longest text it was given."""

    def __init__(self, real):
        self._real, self.longest = real, 0

    def __getattr__(self, name):
        return getattr(self._real, name)

    def __call__(self, texts, *arguments, **options):
        given = [texts] if isinstance(texts, str) else texts
        self.longest = max(self.longest, *map(len, given))
        return self._real(texts, *arguments, **options)


PLAIN = {"prompt": "Q: {question}\nA:", "completion": " {answer}"}
CHAT = {"template": "chat"}


@pytest.mark.parametrize("fields", [PLAIN, CHAT], ids=["plain", "chat"])
@pytest.mark.parametrize("long", ["question", "answer"])
def test_a_row_of_megabytes_becomes_the_same_example_and_is_not_tokenized_whole(
    fields, long, monkeypatch, tmp_path
):
    (tmp_path / "chat.jinja").write_text(
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}"
    )
    more = {"chat_template_file": tmp_path / "chat.jinja"} if fields is CHAT else {"cut": ()}
    config = Config.model_validate({"files": {"train": "x.jsonl"}, **fields, **more})
    draw = random.Random(0)
    said = {
        "question": "why?",
        "answer": "so",
        long: " ".join(draw.choices(["so", "is", "it"], k=2000)),
    }
    turns = [
        {"role": "user", "content": said["question"]},
        {"role": "assistant", "content": said["answer"]},
    ]
    row = (
        {"messages": turns, "label": said["answer"]}
        if fields is CHAT
        else {"fields": said, "label": ""}
    )
    counting = Counting(tokenizer())
    built = Builder(config, counting).build([row], 32)
    assert counting.longest <= _tokens.LONG * 32
    monkeypatch.setattr(_tokens, "LONG", 10**9)
    whole = Builder(config, tokenizer()).build([row], 32)
    assert built.left_out == whole.left_out
    kept, expected = (b.examples[0].within(32) for b in (built, whole))
    assert (kept.ids == expected.ids).all()
    assert (kept.trained == expected.trained).all()
