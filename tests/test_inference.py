"""A finished run predicts what it predicted when it was trained, whatever is given to it."""

import json
import logging
import shutil

import pytest
import torch
from faults import fault
from finished_runs import LABELS, finish
from PIL import Image

import graftlab
from graftlab import inference
from graftlab.errors import ConfigError, DataError, ModelError
from graftlab.runs import prediction
from graftlab.weights import pretrained

TEXTS = ["fine glad", "poor", "well ah oh", "so so so so", "warm kind test"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inference")


@pytest.fixture(scope="module")
def runs(folder):
    return {name: finish(folder, {"name": name}) for name in ("lora", "dora", "adalora")}


@pytest.fixture(scope="module")
def adapted(runs):
    return graftlab.load(runs["lora"].path)


def probabilities(rows):
    return torch.tensor([row["probabilities"] for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("name", ["lora", "dora", "adalora"])
def test_a_loaded_run_evaluates_as_it_did_when_it_was_trained(runs, name):
    predictions, scores = graftlab.load(runs[name].path).evaluate("test")
    trained = prediction.read(runs[name].predictions("test"))
    before = runs[name].read_result()["metrics"]["test"]
    if name != "adalora":  # whose file is cut to its ranks
        assert predictions == trained
        assert {n: score._asdict() for n, score in scores.items()} == {
            n: score for n, score in before.items() if n != "loss"
        }
    torch.testing.assert_close(
        probabilities(predictions), probabilities(trained), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", ["lora", "dora", "adalora"])
def test_plain_peft_and_predict_agree_bit_for_bit_on_the_same_batch(runs, folder, name):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "bert")
    texts = sorted(TEXTS, key=lambda text: -len(tokenizer(text)["input_ids"]))
    base = AutoModelForSequenceClassification.from_pretrained(folder / "bert", num_labels=3)
    model = PeftModel.from_pretrained(base, runs[name].adapter).eval()
    with torch.no_grad():
        expected = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1)
    answers = graftlab.load(runs[name].path).predict(texts, batch_size=len(texts))
    assert [list(a["probabilities"].values()) for a in answers] == expected.tolist()
    assert [a["label"] for a in answers] == expected.argmax(-1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "dora", "adalora"])
def test_minilm_too_gives_the_same_bits_trained_loaded_and_in_plain_peft(tmp_path, name):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        base = pretrained.locate("minilm").folder
    except ModelError as error:
        pytest.skip(f"MiniLM is not at hand: {error}")
    training = {"training": {"learning_rate": 0.001}}
    run = finish(tmp_path, {"name": name}, backbone={"model": "minilm"}, **training)
    predictions, _ = graftlab.load(run.path).evaluate("test")
    trained = prediction.read(run.predictions("test"))
    if name != "adalora":
        assert predictions == trained
    torch.testing.assert_close(
        probabilities(predictions), probabilities(trained), rtol=0, atol=1e-5
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    model = PeftModel.from_pretrained(plain, run.adapter).eval()
    texts = sorted(TEXTS, key=lambda text: -len(tokenizer(text)["input_ids"]))
    with torch.no_grad():
        expected = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1)
    answers = graftlab.load(run.path).predict(texts, batch_size=len(texts))
    assert [list(a["probabilities"].values()) for a in answers] == expected.tolist()


def test_an_answer_has_the_label_its_name_and_the_probabilities_by_name(adapted):
    [answer] = adapted.predict("fine glad")
    assert list(answer) == ["index", "label", "name", "probabilities"]
    assert tuple(answer["probabilities"]) == LABELS
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert answer["name"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert LABELS[answer["label"]] == answer["name"]


def test_all_forms_of_input_give_the_same_answers(adapted, tmp_path):
    expected = adapted.predict(TEXTS)
    (tmp_path / "a.txt").write_text("\n".join(TEXTS) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"{t}\n" for t in TEXTS))
    for name in ("a.txt", "a.jsonl", "a.csv"):
        assert adapted.predict(tmp_path / name) == expected
    assert adapted.predict([{"text": text, "more": 1} for text in TEXTS]) == expected


def test_the_index_is_the_line_also_where_blank_lines_are_passed_over(adapted, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffine\r\n\r\n  \nglad")
    assert [answer["index"] for answer in adapted.predict(tmp_path / "a.txt")] == [0, 3]


HOSTILE = {
    "empty": "",
    "blank": "   ",
    "ansi": "\x1b[31mred\x07",
    "html": "<script>alert(1)</script>",
    "emoji": "\U0001f600\U0001f469\u200d\U0001f467",
    "right-to-left": "\u05e9\u05dc\u05d5\u05dd \u202e abc",
    "combining": "e\u0301\u2028x",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_only_text(adapted, text):
    [answer] = adapted.predict([text])
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("a\0b", "NUL"),
        ("\ud800", "lone surrogate"),
        (None, "text"),
        (3, "text"),
        ({"txet": "a"}, "txet"),
        (("a", "b"), "2.*takes 1"),
    ],
    ids=ascii,
)
def test_what_is_no_text_is_refused(adapted, item, said):
    with pytest.raises(DataError, match=said) as error:
        adapted.predict(["fine", item])
    assert "row 2" in str(error.value) or "column" in str(error.value)


def test_no_input_is_refused(adapted):
    with pytest.raises(DataError, match="no rows"):
        adapted.predict([])


def test_long_inputs_are_cut_and_counted(adapted, caplog):
    long = "x" * 1_000_000
    with caplog.at_level(logging.WARNING, "graftlab"):
        answers = adapted.predict(["fine", long, "y" * 500])
    assert "than 96" in caplog.text
    assert answers[1]["probabilities"] == pytest.approx(
        adapted.predict([long[:1000]])[0]["probabilities"], abs=1e-6
    )


def test_an_output_that_is_not_finite_is_an_error(runs):
    broken = graftlab.load(runs["lora"].path)
    with torch.no_grad():
        next(p for n, p in broken.model.named_parameters() if "modules_to_save" in n).fill_(
            float("nan")
        )
    with pytest.raises(ModelError, match="input 0"):
        broken.predict(["fine"])


def test_pairs_and_scores(tmp_path):
    rows = ["a,b,score"] + [f"x{i},y{i},{i % 5}" for i in range(12)]
    for split in ("train", "validation", "test"):
        text = "\n".join([rows[0]] + [f"{split}{row}" for row in rows[1:]])
        (tmp_path / f"{split}.csv").write_text(text + "\n")
    (tmp_path / "data").mkdir()
    task = {
        "regression": True,
        "files": {s: str(tmp_path / f"{s}.csv") for s in ("train", "validation", "test")},
        "columns": {"text": "a", "pair": "b", "label": "score"},
    }
    loaded = graftlab.load(finish(tmp_path, {"name": "lora"}, task=task).path)
    answers = loaded.predict([("one", "two"), {"a": "one", "b": "two"}])
    assert [list(answer) for answer in answers] == [["index", "label"]] * 2
    assert isinstance(answers[0]["label"], float)
    assert answers[0]["label"] == answers[1]["label"]
    assert answers[0] != loaded.predict([("two", "one")])[0]
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"pairs.*JSONL"):
        loaded.predict(tmp_path / "a.txt")
    trained = prediction.read(loaded.run.predictions("test"))
    assert loaded.evaluate("test")[0] == trained


@pytest.mark.slow
def test_images_are_named_by_their_files(tmp_path):
    for split in ("train", "validation", "test"):
        for index, name in enumerate(("dark", "light") * 4):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True, exist_ok=True)
            shade = (len(split) + index + 200 * (name == "light"),) * 3
            Image.new("RGB", (8, 8), shade).save(folder / f"{index}.png")
    changes = {
        "backbone": {"kind": "tiny", "modality": "images", "model": "tiny"},
        "task": {"kind": "images", "files": None, "data_dir": str(tmp_path / "data")},
    }
    run = finish(tmp_path, {"name": "lora"}, **changes)
    loaded = graftlab.load(run.path)
    answers = loaded.predict(tmp_path / "data" / "test")
    assert [a["file"] for a in answers] == sorted(map(str, tmp_path.glob("data/test/*/*.png")))
    assert {a["name"] for a in answers} <= {"dark", "light"}
    assert loaded.evaluate("test")[0] == prediction.read(run.predictions("test"))


@pytest.mark.slow
def test_a_run_in_bf16_predicts_in_bf16(folder):
    training = {"training": {"precision": "bf16"}}
    run = finish(folder, {"name": "lora"}, name="lower", **training)
    trained = prediction.read(run.predictions("test"))
    assert inference.load(run.path).evaluate("test")[0] == trained


def test_the_data_may_be_gone_for_predict_and_not_for_evaluate(runs, folder, adapted, tmp_path):
    shutil.move(folder / "data", tmp_path / "away")
    try:
        again = graftlab.load(runs["lora"].path)
        assert again.predict(TEXTS) == adapted.predict(TEXTS)
        with pytest.raises(DataError, check=fault("missing")):
            again.evaluate("test")
    finally:
        shutil.move(tmp_path / "away", folder / "data")


def test_changed_data_are_refused(folder, adapted):
    path = folder / "data" / "test.csv"
    before = path.read_text()
    path.write_text(before.replace("poor", "pour"))
    try:
        with pytest.raises(DataError, check=fault("changed")):
            adapted.evaluate("test")
    finally:
        path.write_text(before)


def test_a_split_that_is_not_there_is_named(adapted):
    with pytest.raises(DataError, match="'dev'"):
        adapted.evaluate("dev")


def test_another_backbone_is_refused(runs, folder):
    path = folder / "bert" / "model.safetensors"
    before = path.read_bytes()
    path.write_bytes(before[:-4] + b"\0\0\0\1")
    try:
        with pytest.raises(ModelError, check=fault("other_weights")):
            graftlab.load(runs["lora"].path)
    finally:
        path.write_bytes(before)


def test_what_is_no_run_is_named(runs, tmp_path):
    with pytest.raises(ConfigError, check=fault("no_run"), match=str(runs["lora"].path)):
        graftlab.load(runs["lora"].adapter)
    with pytest.raises(ConfigError, check=fault("no_run")):
        graftlab.load(tmp_path)
    (tmp_path / "config.yaml").write_text(runs["lora"].config.read_text())
    with pytest.raises(ConfigError, check=fault("not_finished")):
        graftlab.load(tmp_path)
