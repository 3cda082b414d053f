"""The likelihoods of choices are those that transformers itself computes, one choice at a time."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch.nn import functional as F

from graftlab import config, inference, runfile
from graftlab.backbones import decoder, tiny
from graftlab.config import merge
from graftlab.contracts import Backbone, Data, Problem, Setting
from graftlab.data.rows import Rows
from graftlab.methods import prefix, prompt
from graftlab.runs import session
from graftlab.tasks import _choice_tokens, _logits, multiple_choice
from graftlab.tasks._choice_tokens import join
from graftlab.testing import examples

SHARED = Path(__file__).parents[2].parent / "shared" / "models" / "small-llama"
NAMES = ("A", "B", "C")
PROBLEM = Problem("tokens", NAMES)
ROWS = [
    ("What flies at night?", ("a bat", "a stone that was thrown", "x"), 0),
    ("A question which is a good deal longer than the other one: why?", ("é 👩", "no", "because it is"), 2),
    ("So?", ("yes", "no", "yes and no"), 1),
]  # fmt: skip


def data(rows: Any = ROWS) -> Data:
    columns = {
        "index": list(range(len(rows))),
        "question": [question for question, _, _ in rows],
        "choices": [choices for _, choices, _ in rows],
        "label": [right for _, _, right in rows],
    }
    return Data({"train": Rows(columns)}, PROBLEM)


def section(**fields: Any) -> multiple_choice.Config:
    fields = {"labels": NAMES, "form": "likelihood", **fields}
    return multiple_choice.Config(source="x:y", **fields)


def tiny_backbone() -> Backbone:
    return tiny.load(tiny.Config(dropout=0), PROBLEM, 0)


def bound(backbone: Backbone, rows: Any = ROWS, **fields: Any) -> Any:
    return multiple_choice.bind(data(rows), backbone, section(**fields), 0)


def real_backbone() -> Backbone:
    if not SHARED.is_dir():
        pytest.skip("the shared models are not beside this clone")
    return decoder.load(decoder.Config(model=str(SHARED)), PROBLEM, 0)


def alone(backbone: Backbone, before: str, choice: str) -> tuple[float, int]:
    """Return the summed loss and the number of a choice's tokens: those that end behind the prompt."""
    encoded = backbone.processor(f"{before} {choice}", return_offsets_mapping=True)
    ids = torch.tensor([encoded["input_ids"]])
    behind = torch.tensor([[end > len(before) for _, end in encoded["offset_mapping"]]])
    with torch.no_grad():
        mean = backbone.model.eval()(ids, labels=ids.masked_fill(~behind, -100)).loss.item()
    return mean * int(behind.sum()), int(behind.sum())


def predictions(task: Any, model: Any) -> list[dict[str, Any]]:
    with torch.no_grad():
        return task.predict(model, task.batch("train", range(task.size("train")), None))


@pytest.mark.quick("real_backbone-none", "tiny_backbone-*")
@pytest.mark.parametrize("normalise", ["none", "tokens", "characters"])
@pytest.mark.parametrize("make", [tiny_backbone, real_backbone])
def test_likelihoods_are_those_of_each_choice_alone(make: Any, normalise: str) -> None:
    backbone = make()
    task = bound(backbone, normalise=normalise, max_length=128)
    for (question, choices, right), found in zip(
        ROWS, predictions(task, backbone.model), strict=True
    ):
        before = f"Question: {question}\nAnswer:"
        losses, counts = zip(*(alone(backbone, before, choice) for choice in choices), strict=True)
        units = {"none": [1] * 3, "tokens": counts, "characters": [len(c) for c in choices]}
        scores = -torch.tensor(losses) / torch.tensor(units[normalise])
        # Other padding and other sums round otherwise; scores reach -200
        expected = pytest.approx(scores.softmax(-1).tolist(), rel=1e-3, abs=1e-6)
        assert found["probabilities"] == expected
        assert found["prediction"] == int(scores.argmax())
        assert found["loss"] == pytest.approx(losses[right], rel=1e-5)
        assert found["count"] == counts[right]
        assert found["label"] == right


@pytest.mark.parametrize("make", [tiny_backbone, real_backbone])
def test_training_minimises_the_loss_of_the_right_answers_tokens(make: Any) -> None:
    backbone = make()
    task = bound(backbone, max_length=128)
    batch = task.batch("train", [0, 1, 2], 0)
    one = backbone.model(**batch)  # transformers' own loss: the mean over the labels
    assert task.loss(backbone.model, batch).item() == pytest.approx(
        one.loss.item() * task.count(batch), rel=1e-5
    )
    expected = [
        alone(backbone, f"Question: {q}\nAnswer:", choices[right]) for q, choices, right in ROWS
    ]
    assert task.count(batch) == sum(count for _, count in expected)
    assert task.loss(backbone.model, batch).item() == pytest.approx(
        sum(loss for loss, _ in expected), rel=1e-5
    )
    whole = task.batch("train", [0, 1, 2], None)
    assert task.count(whole) == task.count(batch)
    assert task.loss(backbone.model, whole).item() == pytest.approx(
        task.loss(backbone.model, batch).item(), rel=1e-5
    )


def test_label_smoothing_is_over_the_vocabulary() -> None:
    backbone = tiny_backbone()
    task = bound(backbone)
    batch = task.batch("train", [0, 1, 2], 0)
    logits = backbone.model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    expected = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), label_smoothing=0.3,
        reduction="sum",
    )  # fmt: skip
    torch.testing.assert_close(task.loss(backbone.model, batch, 0.3), expected, rtol=1e-5, atol=0)


def test_a_loss_in_pieces_has_the_same_value_and_gradient(monkeypatch: Any) -> None:
    backbone = tiny_backbone()
    task = bound(backbone)
    batch = task.batch("train", [0, 1, 2], 0)

    def value_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        weight = backbone.model.get_input_embeddings().weight
        loss = task.loss(backbone.model, batch, 0.1)
        [gradient] = torch.autograd.grad(loss, [weight])
        return loss, gradient

    whole = value_and_gradient()
    monkeypatch.setattr(_logits, "CHUNK", 4)
    torch.testing.assert_close(value_and_gradient(), whole)


def test_no_more_than_a_piece_of_the_log_softmax_is_kept_for_the_backward_pass(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(_logits, "CHUNK", 4)
    kept: list[int] = []
    logits_MV = torch.randn(40, 7, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel() * x.is_floating_point()) or x, lambda x: x
    ):
        _logits.cross_entropy(logits_MV * 1, torch.zeros(40, dtype=torch.long), 0.0).sum()
    # The gradient of the logits, and nothing of their size beside it
    assert sum(kept) <= logits_MV.numel()


def even() -> Any:
    """Return a model for which all 261 tokens are equally likely."""

    def model(input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 261))

    return model


@pytest.mark.parametrize(("normalise", "best"), [("none", 1), ("characters", 2)], ids=str)
def test_what_is_divided_by_decides_between_short_and_long(normalise: str, best: int) -> None:
    """Where each byte costs the same, the sum prefers the shortest; and of a space and N letters the
    longest costs the least a letter."""
    task = bound(tiny_backbone(), [("q", ("abc", "a", "abcdefgh"), 0)], normalise=normalise)
    assert predictions(task, even())[0]["prediction"] == best


def test_choices_of_equal_cost_a_token_are_equal_where_tokens_divide() -> None:
    task = bound(tiny_backbone(), [("q", ("abc", "a", "abcdefgh"), 0)], normalise="tokens")
    assert predictions(task, even())[0]["probabilities"] == pytest.approx([1 / 3] * 3)


def test_right_answers_in_a_row_make_an_accuracy_of_one() -> None:
    from graftlab.metrics import accuracy
    from graftlab.runs.evaluation import mean_loss

    rows = [("q", ("abc", "a", "abcdefgh"), right) for right in (1, 1, 0)]
    found = predictions(bound(tiny_backbone(), rows), even())
    assert accuracy.score(found).value == pytest.approx(2 / 3)
    # The mean over tokens, each at log(261): that of the training loss
    assert mean_loss(found) == pytest.approx(torch.tensor(261.0).log().item(), rel=1e-6)


def test_a_model_that_gives_all_logits_has_the_same_likelihoods() -> None:
    backbone = tiny_backbone()
    asked: list[Any] = []

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = backbone.model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            asked.append(input_ids.shape)
            return self.inner(input_ids=input_ids, attention_mask=attention_mask)

    other = dataclasses.replace(backbone, model=Whole())
    few, all_of_them = bound(backbone), bound(other)
    expected = predictions(few, backbone.model)
    for one, two in zip(predictions(all_of_them, other.model), expected, strict=True):
        assert one["probabilities"] == pytest.approx(two["probabilities"], rel=1e-5)
    assert asked


@pytest.mark.parametrize("method", [prompt, prefix], ids=["prompt", "prefix"])
def test_virtual_tokens_shift_nothing(method: Any) -> None:
    backbone = tiny_backbone()
    task = bound(backbone)
    batch = task.batch("train", [0, 1, 2], 0)
    setting = Setting(0, 4, 2, PROBLEM, lambda: iter([batch]))
    attached = method.attach(backbone, method.Config(num_tokens=3, init="random"), setting)
    model = attached.model.eval()
    inputs = {name: x for name, x in batch.items() if name != "labels"}
    logits = model(**inputs).logits[:, -batch["labels"].shape[1] :]
    expected = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
    )
    torch.testing.assert_close(task.loss(model, batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "whole", "start", "limit", "expected"),
    [
        ([5, 6], [5, 6, 7, 8], [1], 9, ([1, 5, 6, 7, 8], 3, False)),
        # The choice's first letter has melted into the prompt's last token: both are scored.
        ([5, 6], [5, 9, 8], [1], 9, ([1, 5, 9, 8], 2, False)),
        ([5, 6], [9, 8], [], 9, ([0, 9, 8], 1, False)),  # nothing before: a stand-in
        ([5, 6], [5, 6], [1], 9, ([1, 5, 6], 2, False)),  # nothing behind: the last token
        ([5, 6], [5, 6, 7, 8], [1], 4, ([1, 6, 7, 8], 2, True)),  # the prompt's beginning goes
        ([5, 6], [5, 6, 7, 8], [], 3, ([6, 7, 8], 1, True)),
        ([5, 6], [5, 6, 7, 8], [1], 2, ([1, 7], 1, True)),  # then the choice's end
        ([5, 6], [5, 6, 7, 8], [], 2, ([6, 7], 1, True)),
    ],
)
def test_prompt_and_choice_part_where_their_tokens_do(
    prompt: Any, whole: Any, start: Any, limit: int, expected: Any
) -> None:
    assert join(prompt, whole, start, 0, limit) == expected


def test_the_tokens_before_a_text_are_kept_and_those_behind_it_are_not() -> None:
    class Ending:
        def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
            own = [7] * len(text)
            return {"input_ids": [1, 2, *own, 3] if add_special_tokens else own}

    assert _choice_tokens.own_start(Ending()) == [1, 2]
    assert _choice_tokens.own_start(tiny_backbone().processor) == [2]


def test_a_prompt_may_hold_the_choices_and_end_in_white_space() -> None:
    backbone = tiny_backbone()
    task = bound(backbone, prompt="{question}\n{choices}\n\n", max_length=128)
    batch = task.batch("train", [2], 0)
    text = backbone.processor.decode(batch["input_ids"][0], skip_special_tokens=True)
    assert text == "So?\nA. yes\nB. no\nC. yes and no\n\nno"
    scored = batch["labels"][0][batch["labels"][0] >= 0]
    assert backbone.processor.decode(scored) == "\n\nno"  # white space belongs to the choice


def test_lengths_are_those_of_the_longest_choice_and_what_is_cut_is_counted() -> None:
    backbone = tiny_backbone()
    task = bound(backbone, max_length=60)
    prompts = [len(f"Question: {q}\nAnswer:".encode()) for q, _, _ in ROWS]
    longest = [
        1 + n + 1 + max(len(c.encode()) for c in row[1])
        for n, row in zip(prompts, ROWS, strict=True)
    ]
    assert list(task.lengths("train")) == [min(60, n) for n in longest]
    assert task.record == {"max_length": 60, "truncated": {"train": sum(n > 60 for n in longest)}}


# A whole run.

RUN: dict[str, Any] = {
    "backbone": {"kind": "tiny", "width": 16, "layers": 1, "max_length": 64},
    "method": {"name": "lora", "rank": 2},
    "training": {"max_steps": 4, "batch_size": 4, "logging_every": 1, "evaluate_every": 2},
}


def run(folder: Path, **changes: Any) -> Any:
    folder.mkdir()
    section = examples.likelihood(folder)
    task = {
        "kind": "multiple_choice", "data_dir": str(folder), "labels": list("ABC"),
        "form": section.form, "normalise": section.normalise, "max_length": 60,
    }  # fmt: skip
    values = merge(RUN, {"task": task, "paths": {"runs": str(folder / "runs")}, **changes})
    (folder / "run.yaml").write_text(config.dump(values))
    file = runfile.resolve(config.read(folder / "run.yaml"))
    return session.run(file, options=session.Options(quiet=True))


@pytest.mark.slow
def test_a_run_depends_on_its_seed_alone(tmp_path: Path) -> None:
    first, again = run(tmp_path / "a"), run(tmp_path / "b")
    assert first.metrics.read_bytes() == again.metrics.read_bytes()
    assert first.metrics.read_bytes() != run(tmp_path / "c", seed=1).metrics.read_bytes()


def test_a_finished_run_chooses_for_new_questions(tmp_path: Path) -> None:
    done = run(tmp_path / "a")
    (tmp_path / "a" / "train.jsonl").unlink()  # the rows are not needed
    adapted = inference.load(done.path)
    [answer] = adapted.predict('{"question": "so?", "choices": ["no", "yes", "perhaps"]}')
    assert answer["name"] == NAMES[answer["label"]]
    assert set(answer["probabilities"]) == set(NAMES)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert isinstance(adapted.backbone.model, transformers.LlamaForCausalLM)
