"""Examples become tensors, a loss and predictions, for texts and for images."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from faults import fault
from PIL import Image
from transformers import BatchEncoding

from graftlab.backbones import tiny
from graftlab.contracts import Backbone, Data, Problem
from graftlab.data.rows import Rows
from graftlab.errors import ConfigError, DataError
from graftlab.tasks import classification, images

TWO = Problem("classes", ("no", "yes"))
SCORE = Problem("regression")
TEXTS = [
    "short",
    "a longer text",
    "",
    "  \n",
    "אבג 👩‍👩‍👧 é",
    "<script>ignore all of it</script>" * 9,
]


def rows(texts: list[str], pairs: list[str | None] | None = None, labels: Any = None) -> Rows:
    n = len(texts)
    return Rows(
        {
            "index": list(range(n)),
            "text": texts,
            "pair": pairs or [None] * n,
            "label": [i % 2 for i in range(n)] if labels is None else labels,
        }
    )


def bound(data: Data, **fields: Any) -> tuple[Any, Backbone]:
    backbone = tiny.load(tiny.Config(dropout=0), data.problem, seed=0)
    config = classification.Config(source="x:y", labels=["no", "yes"], **fields)
    return classification.bind(data, backbone, config, 0), backbone


def data_of(found: Rows, problem: Problem = TWO) -> Data:
    return Data({"train": found, "validation": found[:0], "test": found[:0]}, problem)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("paired", [False, True])
def test_a_batch_is_what_the_tokenizer_pads(side: str, paired: bool) -> None:
    pairs = TEXTS[::-1] if paired else None
    data = data_of(rows(TEXTS, pairs))
    backbone = tiny.load(tiny.Config(), TWO, seed=0)
    backbone.processor.padding_side = side
    config = classification.Config(source="x:y", labels=["no", "yes"], max_length=40)
    task = classification.bind(data, backbone, config, 0)
    expected = backbone.processor(
        TEXTS, pairs, truncation=True, max_length=40, padding=True, return_tensors="pt"
    )
    batch = task.batch("train", range(len(TEXTS)), None)
    assert set(batch) == {*expected, "labels"}
    for name, value in expected.items():
        torch.testing.assert_close(batch[name], value)
    assert batch["labels"].tolist() == [0, 1, 0, 1, 0, 1]
    assert list(task.lengths("train")) == expected["attention_mask"].sum(-1).tolist()


def test_a_batch_is_only_as_long_as_its_longest_text() -> None:
    task, _ = bound(data_of(rows(TEXTS)))
    batch = task.batch("train", [2, 0], None)
    assert batch["input_ids"].shape == (2, task.lengths("train")[0])
    assert task.size("train") == 6
    assert task.size("validation") == task.size("input") == 0


def test_cut_texts_are_counted() -> None:
    task, _ = bound(data_of(rows(TEXTS)), max_length=13)
    # one token a byte and two special ones: "a longer text" has 15, the next two are longer still
    assert task.record == {"max_length": 13, "truncated": {"train": 3}}
    assert max(task.lengths("train")) == 13
    with pytest.raises(ConfigError, match=r"task.max_length 129 .* 128"):
        bound(data_of(rows(TEXTS)), max_length=129)


def test_a_tokenizer_that_does_not_tell_what_it_cut_gives_the_same_count() -> None:
    data = data_of(rows(TEXTS))
    fast, backbone = bound(data, max_length=13)

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(backbone.processor, name)

        def __call__(self, *args: Any, **options: Any) -> Any:
            return BatchEncoding(dict(backbone.processor(*args, **options)))

    slow = classification.TextTask(data, Slow(), 13, ())
    assert slow.record == fast.record


def test_an_empty_text_is_one_token_where_the_tokenizer_adds_none() -> None:
    backbone = tiny.load(tiny.Config(), TWO, seed=0)
    backbone.processor.backend_tokenizer.post_processor = None
    config = classification.Config(source="x:y", labels=["no", "yes"])
    task = classification.bind(data_of(rows(["", "ab"])), backbone, config, 0)
    assert task.batch("train", [0, 1], None)["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert task.batch("train", [0], None)["input_ids"].shape == (1, 1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_summed_cross_entropy(smoothing: float) -> None:
    from transformers.trainer_pt_utils import LabelSmoother

    task, backbone = bound(data_of(rows(TEXTS)))
    batch = task.batch("train", [0, 1, 2, 4], None)
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    output = backbone.model(**inputs)
    mean = (
        LabelSmoother(epsilon=smoothing)(output, labels[:, None])
        if smoothing
        else (backbone.model(**batch).loss)
    )
    torch.testing.assert_close(task.loss(backbone.model, batch, smoothing), mean * 4)
    assert task.count(batch) == 4


def test_the_loss_of_scores_is_the_summed_squared_error() -> None:
    scores = [0.5, 2.0, -1.0, 5.0, 0.0, 1.0]
    data = data_of(rows(TEXTS, labels=scores), SCORE)
    task, backbone = bound(data)
    batch = task.batch("train", [0, 1, 3], None)
    torch.testing.assert_close(task.loss(backbone.model, batch), backbone.model(**batch).loss * 3)
    found = task.predict(backbone.model, batch)
    assert [one["label"] for one in found] == [0.5, 2.0, 5.0]
    assert "probabilities" not in found[0]
    for one in found:
        assert one["loss"] == pytest.approx((one["prediction"] - one["label"]) ** 2, rel=1e-5)


def test_the_model_is_not_given_the_labels() -> None:
    task, _ = bound(data_of(rows(TEXTS)))

    def model(**inputs: Any) -> Any:
        assert "labels" not in inputs
        return SimpleNamespace(logits=torch.zeros(len(inputs["input_ids"]), 2))

    assert task.loss(model, task.batch("train", [0, 1], None)).item() == pytest.approx(
        2 * np.log(2)
    )


def test_predictions_hold_probabilities_and_losses_in_float32() -> None:
    task, _ = bound(data_of(rows(TEXTS)))
    logits = torch.tensor([[0.0, 3.0], [1.0, 1.5]], dtype=torch.bfloat16)
    found = task.predict(
        lambda **_: SimpleNamespace(logits=logits), task.batch("train", [0, 1], None)
    )
    assert [one["prediction"] for one in found] == [1, 1]
    assert [one["label"] for one in found] == [0, 1]
    shares = 1 / (1 + np.exp(3)), 1 / (1 + np.exp(0.5))
    assert [one["probabilities"][0] for one in found] == pytest.approx(shares, rel=1e-6)
    losses = -np.log(shares[0]), -np.log(1 - shares[1])
    assert [one["loss"] for one in found] == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize("problem", [TWO, SCORE])
def test_new_inputs_have_predictions_and_no_loss(problem: Problem) -> None:
    labels = ["no", "yes"] if problem is TWO else None
    config = classification.Config(source="x:y", labels=labels, regression=problem is SCORE)
    inputs = classification.read_inputs(config, ["one text", {"text": "another", "label": 7}])
    backbone = tiny.load(tiny.Config(), problem, seed=0)
    task = classification.bind(Data({"input": inputs}, problem), backbone, config, 0)
    found = task.predict(backbone.model, task.batch("input", [0, 1], None))
    assert [(one["label"], one["loss"]) for one in found] == [(None, None)] * 2
    assert all(np.isfinite(one["prediction"]) for one in found)


def test_inputs_come_from_text_lines_jsonl_csv_and_lists(tmp_path: Path) -> None:
    config = classification.Config(source="x:y", labels=["no", "yes"])
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "a.csv").write_text("text\none\ntwo\n")
    for source in (*(tmp_path / f"a.{kind}" for kind in ("txt", "jsonl", "csv")), ["one", "two"]):
        assert [row["text"] for row in classification.read_inputs(config, source)] == ["one", "two"]
    assert classification.read_inputs(config, "one")[0]["text"] == "one"
    (tmp_path / "b.jsonl").write_text('{"txet": "one"}\n')
    with pytest.raises(DataError, match="'txet'"):
        classification.read_inputs(config, tmp_path / "b.jsonl")
    paired = classification.Config(source="x:y", labels=["a", "b"], columns={"pair": "other"})
    assert classification.read_inputs(paired, [["one", "two"]])[0]["pair"] == "two"
    with pytest.raises(DataError, match=r"row 1: 1.*takes 2"):
        classification.read_inputs(paired, ["one"])


# Images.

RNG = np.random.default_rng(0)
PIXELS = [RNG.integers(0, 256, (8, 8), dtype=np.uint8) for _ in range(6)]


def image_task(**fields: Any) -> tuple[images.ImageTask, Backbone]:
    pictures = fields.pop("pictures", PIXELS)
    found = Rows({"index": list(range(6)), "image": pictures, "label": [0, 1] * 3})
    backbone = tiny.load(tiny.Config(modality="images", channels=fields.pop("channels", 3)), TWO, 0)
    config = images.Config(source="x:y", labels=["no", "yes"], **fields)
    return images.bind(Data({"train": found}, TWO), backbone, config, 7), backbone


def test_an_image_batch_is_what_the_processor_gives() -> None:
    task, backbone = image_task()
    expected = backbone.processor(
        images=[Image.fromarray(PIXELS[i]).convert("RGB") for i in (4, 1)], return_tensors="pt"
    )
    for _ in range(2):  # the second time from memory
        batch = task.batch("train", [4, 1], epoch=0)
        torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"])
        assert batch["labels"].tolist() == [0, 1]
    assert task.loss(backbone.model, batch).isfinite()
    assert task.predict(backbone.model, batch)[0]["label"] == 0


def test_grey_models_are_given_grey_images() -> None:
    task, backbone = image_task(channels=1)
    batch = task.batch("train", [0], None)
    expected = torch.from_numpy(PIXELS[0] / 127.5 - 1).float()
    torch.testing.assert_close(batch["pixel_values"], expected[None, None], atol=1e-6, rtol=0)
    assert task.loss(backbone.model, batch).isfinite()


def test_augmentation_depends_on_seed_epoch_and_index_alone() -> None:
    def pixels(task: images.ImageTask, indices: list[int], epoch: int | None) -> torch.Tensor:
        return task.batch("train", indices, epoch)["pixel_values"]

    task, _ = image_task(augment=["flip", "crop"])
    other, _ = image_task(augment=["flip", "crop"])
    first = pixels(task, [0, 1, 2, 3], 0)
    assert torch.equal(first[2], pixels(other, [5, 2], 0)[1])
    assert not torch.equal(first, pixels(task, [0, 1, 2, 3], 1))
    plain, _ = image_task()
    assert torch.equal(pixels(task, [0, 1], None), pixels(plain, [0, 1], None))


def test_new_images_of_a_folder_are_those_that_a_person_put_there(tmp_path: Path) -> None:
    for name in ("b.png", "in/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    for name in ("._b.png", "__MACOSX/a.png", ".trash/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    config = images.Config(source="x:y", labels=["no", "yes"])
    read = images.read_inputs(config, tmp_path)
    assert [row["image"] for row in read] == [tmp_path / "b.png", tmp_path / "in" / "a.png"]
    (tmp_path / "c.png").write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        images.read_inputs(config, tmp_path)
    assert caught.value.problems[0].place.file == str(tmp_path / "c.png")


def test_flips_mirror_half_of_the_images() -> None:
    image = Image.fromarray(PIXELS[0])
    mirrored = PIXELS[0][:, ::-1]
    found = [np.asarray(images.augment(image, ("flip",), (0, 0, i))) for i in range(400)]
    flips = sum(np.array_equal(one, mirrored) for one in found)
    assert all(np.array_equal(one, mirrored) or np.array_equal(one, PIXELS[0]) for one in found)
    assert 140 < flips < 260  # 6 standard deviations of a fair coin


def test_a_crop_moves_the_image_by_at_most_an_eighth() -> None:
    image = Image.fromarray(PIXELS[0])
    padded = np.pad(PIXELS[0], 1)
    moved = [padded[y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    seen = set()
    for i in range(200):
        found = np.asarray(images.augment(image, ("crop",), (0, 0, i)))
        seen.add(next(k for k, one in enumerate(moved) if np.array_equal(found, one)))
    assert len(seen) == 9


def test_an_image_that_cannot_be_decoded_is_named() -> None:
    task, _ = image_task(pictures=[*PIXELS[:3], b"broken", *PIXELS[4:]])
    task.batch("train", [2], None)
    with pytest.raises(DataError, match="train row 4"):
        task.batch("train", [3], None)


def test_image_inputs_come_from_files_and_folders(tmp_path: Path) -> None:
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no image")
    config = images.Config(source="x:y", labels=["no", "yes"])
    assert len(images.read_inputs(config, tmp_path)) == 6
    assert len(images.read_inputs(config, tmp_path / "3.png")) == 1
    assert images.read_inputs(config, [PIXELS[0]])[0]["image"] is PIXELS[0]
    with pytest.raises(DataError, check=fault("unusable")):
        images.read_inputs(config, [str(tmp_path / "9.png")])


def test_a_backbone_of_the_other_kind_is_refused() -> None:
    text, image = (tiny.load(tiny.Config(modality=m), TWO, 0) for m in ("text", "images"))
    config = classification.Config(source="x:y", labels=["no", "yes"])
    with pytest.raises(ConfigError, match="reads images"):
        classification.bind(data_of(rows(TEXTS)), image, config, 0)
    with pytest.raises(ConfigError, match="reads text"):
        images.bind(data_of(rows(TEXTS)), text, images.Config(source="x:y", labels=["a", "b"]), 0)
