"""Losses are those of the whole logits, and answers those that a plain loop writes, whatever the batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import RepetitionPenaltyLogitsProcessor
from typer.testing import CliRunner

from graftlab import cli, runfile
from graftlab import config as configs
from graftlab.backbones import tiny
from graftlab.config import Paths
from graftlab.contracts import Backbone, Data, Problem, Setting
from graftlab.errors import ConfigError, Refused
from graftlab.methods import lora, prefix, prompt
from graftlab.programs import sandbox
from graftlab.runs import session
from graftlab.tasks import _logits, generation
from graftlab.tasks.generation._next_token import Chooser
from graftlab.tasks.generation.fields import Config, Generation

TOKENS = Problem("tokens")
EOS = 3
QUESTIONS = ["a", "why is it so?", "so so so", "what", "is it b?", "e"]
METHODS = {"prompt": prompt, "prefix": prefix, "lora": lora}


def backbone(**fields: Any) -> Backbone:
    return tiny.load(tiny.Config(**{"dropout": 0, "width": 16, **fields}), TOKENS, 0)


def task_of(owner: Backbone, questions: list[str] | None = None, **fields: Any) -> Any:
    rows = [
        {"index": i, "fields": {"q": asked, "a": f"{i} it is"}, "label": f"{i} it is"}
        for i, asked in enumerate(questions or QUESTIONS)
    ]
    fields = {"prompt": "{q}:", "completion": " {a}", "metrics": ["perplexity"], **fields}
    fields["generation"] = Generation(**{"max_new_tokens": 8, **fields.get("generation", {})})
    data = Data({"train": rows, "validation": [], "test": rows}, TOKENS)
    return generation.bind(data, owner, Config(source="x:y", **fields), 0)


def attached(name: str, owner: Backbone) -> Any:
    """Return the backbone with a method whose weights are not what they start from."""
    setting = Setting(0, 10, 5, TOKENS, lambda: iter(()))
    virtual = {} if name == "lora" else {"num_tokens": 5, "init": "random"}
    model = METHODS[name].attach(owner, METHODS[name].Config(**virtual), setting).model
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def chain(text: str) -> Backbone:
    """Return a backbone that writes the letter after the one that stands last in `text`, and then the end."""
    owner = backbone(width=64, layers=1)
    tokens = owner.processor(text, add_special_tokens=False)["input_ids"]
    model: Any = owner.model
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                weight.zero_()
        for token, following in zip(tokens, [*tokens[1:], EOS], strict=True):
            model.lm_head.weight[following] += model.model.embed_tokens.weight[token]
    return owner


def written(task: Any, model: Any, indices: list[int], size: int) -> list[Any]:
    batches = [indices[i : i + size] for i in range(0, len(indices), size)]
    with torch.no_grad():
        found = [row for batch in batches for row in task.complete(model, "test", batch)]
    return [row["prediction"] for row in found]


def plain_greedy(model: Any, tokenizer: Any, text: str, count: int) -> str:
    """Return what the model writes, token by token, without cache, padding or batch."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    for _ in range(count):
        with torch.no_grad():
            token = (
                model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1:].argmax(-1)
            )
        if token.item() == EOS:
            break
        ids = torch.cat([ids, token], dim=1)
    said: str = tokenizer.decode(ids[0, start:], skip_special_tokens=True)
    return said


@pytest.mark.quick("lora")
@pytest.mark.parametrize("method", ["none", *METHODS])
def test_greedy_answers_are_those_of_a_plain_loop_whatever_the_batch(method: str) -> None:
    owner = backbone()
    task = task_of(owner)
    model = owner.model if method == "none" else attached(method, owner)
    expected = [
        plain_greedy(model, owner.processor, f"{asked}:", 8).removeprefix(" ")
        for asked in QUESTIONS
    ]
    assert len(set(expected)) > 1
    everything = list(range(len(QUESTIONS)))
    for size in (1, 3, 6):
        assert written(task, model, everything, size) == expected
    assert written(task, model, everything[::-1], 4) == expected[::-1]


def test_an_answer_ends_before_its_end_of_sequence_or_stop_text_and_never_holds_the_prompt() -> (
    None
):
    owner = chain(":>abcdef")
    assert written(task_of(owner), owner.model, [0, 1], 2) == [">abcdef"] * 2
    stopped = task_of(owner, generation={"stop": ["zz", "cd"]})
    assert written(stopped, owner.model, [0, 1], 2) == [">ab"] * 2
    short = task_of(owner, generation={"max_new_tokens": 3})
    assert written(short, owner.model, [0], 1) == [">ab"]
    assert written(task_of(owner, completion=">{a}f"), owner.model, [0], 1) == ["abcde"]


def test_too_long_a_prompt_loses_its_beginning_and_is_answered() -> None:
    owner = chain(":>ab")
    task = task_of(owner, ["x" * 300], max_length=40, max_left_out=0.9, cut=["q"])
    assert written(task, owner.model, [0], 1) == [">ab"]
    with pytest.raises(ConfigError, match=r"max_new_tokens is 200.*has 128"):
        task_of(owner, generation={"max_new_tokens": 200}, metrics=["exact_match"])


def test_draws_come_from_the_seed_and_the_example_whatever_the_batch() -> None:
    owner = backbone()
    drawing = {"temperature": 1.0, "samples": 3}
    task = task_of(owner, generation=drawing)
    everything = list(range(len(QUESTIONS)))
    first = written(task, owner.model, everything, 6)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert written(task, owner.model, everything[::-1], 4) == first[::-1]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(len(set(samples)) == 3 for samples in first)
    other = task_of(owner, generation={**drawing, "seed": 1})
    assert written(other, owner.model, everything, 6) != first
    likeliest = task_of(owner, generation={"temperature": 1.0, "top_k": 1})
    greedy = written(task_of(owner), owner.model, everything, 6)
    assert written(likeliest, owner.model, everything, 6) == greedy


def test_draws_have_the_probabilities_of_the_model() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    count = 4000
    scores = (
        probabilities.log().mul(0.5).repeat(count, 1)
    )  # what temperature 0.5 makes of them again
    chooser = Chooser(Generation(temperature=0.5), torch.ones(count, 1), range(count))
    drawn = chooser(torch.zeros(count, 1, dtype=torch.long), scores).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / count
    error = (probabilities * (1 - probabilities) / count).sqrt()
    assert ((shares - probabilities).abs() < 4 * error).all()
    cut = Chooser(Generation(temperature=0.5, top_p=0.7), torch.ones(count, 1), range(count))
    kept = cut(torch.zeros(count, 1, dtype=torch.long), scores).argmax(-1)
    assert set(kept.tolist()) == {0, 1}


def test_padding_is_no_repetition() -> None:
    ids, scores = torch.tensor([[0, 0, 5, 7, 2]]), torch.randn(1, 10)
    mask = torch.tensor([[0, 0, 1, 1]])  # and a token that was written
    chosen = Chooser(Generation(repetition_penalty=1.7), mask, [0])(ids, scores)
    expected = RepetitionPenaltyLogitsProcessor(1.7)(ids[:, 2:], scores)
    torch.testing.assert_close(chosen, expected, rtol=0, atol=0)


# Losses


@pytest.mark.parametrize("method", ["none", *METHODS])
def test_losses_and_right_tokens_are_those_of_the_whole_logits(method: str) -> None:
    owner = backbone()
    task = task_of(owner)
    model = owner.model if method == "none" else attached(method, owner)
    batch = task.batch("test", range(6), None)
    with torch.no_grad():
        predictions = task.predict(model, batch)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logits, labels = logits[:, -batch["labels"].shape[1] : -1], batch["labels"][:, 1:]
    losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    right = (logits.argmax(-1) == labels) & (labels != -100)
    assert [row["loss"] for row in predictions] == pytest.approx(losses.sum(1).tolist(), rel=1e-5)
    assert [row["correct"] for row in predictions] == right.sum(1).tolist()
    assert [row["count"] for row in predictions] == (labels != -100).sum(1).tolist()
    assert task.loss(model, batch).item() == pytest.approx(losses.sum().item(), rel=1e-5)
    assert [row["label"] for row in predictions] == [f"{i} it is" for i in range(6)]


def test_the_language_head_sees_only_what_is_trained_and_is_left_as_it_was() -> None:
    owner = backbone()
    model: Any = owner.model
    seen: list[torch.Size] = []
    watched = model.lm_head.register_forward_hook(lambda *found: seen.append(found[-1].shape))
    task = task_of(owner)
    batch = task.batch("train", range(4), 0)
    task.loss(model, batch).backward()
    assert seen == [(task.count(batch), 1, model.config.vocab_size)]
    watched.remove()
    assert not model.lm_head._forward_pre_hooks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_and_its_gradient_are_those_of_torch(smoothing: float, dtype: torch.dtype) -> None:
    logits = torch.randn(600, 11).to(dtype).requires_grad_()
    labels, weights = torch.randint(11, (600,)), torch.rand(600)
    found = _logits.cross_entropy(logits, labels, smoothing)
    expected = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)
    one, other = (torch.autograd.grad(x @ weights, logits)[0] for x in (found, expected))
    # In bfloat16 both the gradient and its product with the weight are rounded
    bound = {torch.float32: 1e-6, torch.bfloat16: 0.02}[dtype]
    torch.testing.assert_close(one, other, rtol=bound, atol=1e-6)


@pytest.mark.slow
def test_a_compiled_model_has_the_same_loss() -> None:
    owner = backbone()
    task = task_of(owner)
    batch = task.batch("train", range(3), 0)
    compiled = torch.compile(owner.model, backend="eager")
    torch.testing.assert_close(task.loss(compiled, batch), task.loss(owner.model, batch))
    assert not owner.model.lm_head._forward_pre_hooks  # type: ignore[union-attr]


@pytest.mark.parametrize("packing", ["packed", "padding_free"])
def test_packed_examples_have_the_loss_and_gradient_of_padded_ones(packing: str) -> None:
    owner = backbone()

    def loss_and_gradient(task: Any) -> tuple[torch.Tensor, torch.Tensor, int]:
        batch = task.batch("train", range(6), 0)
        loss = task.loss(owner.model, batch, 0.1)
        weight: Any = owner.model.get_input_embeddings().weight  # type: ignore[operator]
        [gradient] = torch.autograd.grad(loss, [weight])
        return loss, gradient, task.count(batch)

    plain, packed = task_of(owner), task_of(owner, packing=packing, max_length=40)
    assert len(packed.batch("train", range(6), 0)["input_ids"]) < 6
    assert len(packed.batch("test", range(6), None)["input_ids"]) == 6
    expected, found = loss_and_gradient(plain), loss_and_gradient(packed)
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-4, atol=1e-4)
    assert found[2] == expected[2]
    prompted, batch = attached("prompt", backbone()), packed.batch("train", [0, 1], 0)
    with pytest.raises(ConfigError, match="puts virtual tokens before each row"):
        packed.loss(prompted, batch)


def test_virtual_tokens_are_known() -> None:
    assert [_logits.has_virtual_tokens(attached(name, backbone())) for name in METHODS] == [
        True, True, False
    ]  # fmt: skip


# A run


def test_a_run_writes_answers_at_its_end_and_keeps_its_template_with_the_adapter(
    tmp_path: Path,
) -> None:
    section = generation.example(tmp_path).model_dump(mode="json", exclude_unset=True)
    values = {
        "backbone": {"kind": "tiny", "width": 16},
        "task": {"kind": "generation", **section, "metrics": ["perplexity", "exact_match"]},
        "method": {"name": "lora", "rank": 2},
        "training": {"max_steps": 2, "batch_size": 4},
    }
    (tmp_path / "run.yaml").write_text(configs.dump(values))
    file = runfile.resolve(configs.read(str(tmp_path / "run.yaml")))
    run = session.run(file, tmp_path / "out", options=session.Options(quiet=True))
    metrics = run.read_result()["metrics"]
    assert set(metrics["test"]) == {"perplexity", "exact_match", "loss"}
    assert set(metrics["validation"]) == {"perplexity", "loss"}
    said = [json.loads(line)["prediction"] for line in run.predictions("test").open()]
    assert all(isinstance(text, str) for text in said)
    template = json.loads((run.adapter / "template.json").read_text())
    assert (template["prompt"], template["completion"]) == ("Q: {question}\nA:", " {answer}")
    assert template["end_tokens"] == [EOS]

    shown = CliRunner().invoke(cli.app, ["show", "batch", str(tmp_path / "run.yaml"), "--json"])
    found = json.loads(shown.stdout)
    assert len(found["examples"]) == 3
    assert found["examples"][0]["text"].startswith("[CLS]Q: train ")
    assert found["examples"][0]["text"].endswith("times[SEP]⟧")
    tokens = found["examples"][0]["tokens"]
    assert tokens[-1] == {"id": EOS, "text": "[SEP]", "trained": True}
    asked = next(i for i, token in enumerate(tokens) if token["trained"])
    assert "".join(token["text"] for token in tokens[:asked]).endswith("\nA:")


def test_programs_are_run_where_that_is_asked_for(tmp_path: Path) -> None:
    """An untrained model writes no program that passes; what it wrote stands beside the reason."""
    try:
        sandbox.check()
    except Refused as why:
        pytest.skip(str(why))
    rows = [{"text": f"Task {i}", "code": "pass", "test_list": ["assert f()"]} for i in range(9)]
    for split in ("train", "validation", "test"):
        shown = [{**row, "text": f"{split} {row['text']}"} for row in rows]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown))
    config = generation.Config(
        data_dir=tmp_path, prompt="{text}", completion="{code}",
        columns={"reference": ["test_list"]}, metrics=("pass_at_1",), execute_code=True,
        max_length=40, generation={"max_new_tokens": 4},
    )  # fmt: skip
    data = generation.read(config, Paths(), 0)
    backbone = tiny.load(tiny.Config(), data.problem, 0)
    task = generation.bind(data, backbone, config, 0)
    found = task.complete(backbone.model.eval(), "test", [0, 1])
    assert [row["passed"] for row in found] == [[False], [False]]
    assert all(row["reasons"][0] for row in found)
