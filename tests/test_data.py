"""Rows are read or refused with their place, and splits are disjoint by content."""

import base64
import gzip
import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import fault
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from graftlab.config import Paths
from graftlab.data import expressions, hub, labels, pictures, splits
from graftlab.data.rows import Rows
from graftlab.data.section import Hub
from graftlab.errors import ConfigError, DataError, Refused
from graftlab.tasks import _texts, classification, images

LINES = [{"text": f"example {i}", "label": i % 2} for i in range(40)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(folder: Path, **fields: Any) -> Any:
    config = classification.Config(data_dir=folder, **fields)
    return classification.read(config, Paths(), seed=0)


def texts(data: Any, split: str) -> list[str]:
    return [row["text"] for row in data.splits[split]]


# The same rows from every kind of file.


def as_csv(path: Path, end: str = "\n") -> None:
    lines = ["text,label", *(f'"{row["text"]}",{row["label"]}' for row in LINES)]
    path.write_bytes((end.join(lines) + end).encode())


def as_parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(LINES), path)


WRITERS = {
    "train.jsonl": lambda path: write(path, LINES),
    "train.jsonl.gz": lambda path: write(path, LINES),
    "train.json": lambda path: path.write_text(json.dumps(LINES)),
    "train.csv": as_csv,
    "train.tsv": lambda path: path.write_text(
        "text\tlabel\n" + "".join(f"{r['text']}\t{r['label']}\n" for r in LINES)
    ),
    "train.parquet": as_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    data = read(tmp_path)
    rows = [*data.splits["train"], *data.splits["validation"]]
    found = [(row["text"], row["label"]) for row in sorted(rows, key=lambda row: row["index"])]
    assert found == [(row["text"], row["label"]) for row in LINES]
    assert data.problem.labels == ("0", "1")


def test_byte_order_mark_and_crlf_change_nothing(tmp_path: Path) -> None:
    as_csv(tmp_path / "train.csv", "\r\n")
    plain = read(tmp_path).record["fingerprint"]
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "train.csv").read_bytes())
    assert read(tmp_path).record["fingerprint"] == plain


GOOD = b'{"text": "fine", "label": 0}\n{"text": "bad", "label": 1}\n'
FILES = {  # case 47 and 48: content, what the message must hold
    "empty": (b"", "is empty"),
    "blank": (b"\n\n", "has no rows"),
    "malformed": (GOOD + b'{"text": "cut\n', "row 3: not JSON"),
    "a list": (GOOD + b"[1, 2]\n", "row 3: not a JSON object but a list"),
    "not UTF-8": (
        GOOD.replace(b"fine", "fein, süß".encode()) + b'{"text": "\xff", "label": 0}\n',
        "row 3: byte 0xff",
    ),
    "an integer of 5,000 digits": (
        GOOD + b'{"text": "x", "label": ' + b"9" * 5000 + b"}\n",
        "row 3: not JSON",
    ),
    "NUL": (GOOD + b'{"text": "\x00", "label": 0}\n', "row 3: a NUL byte"),
    "escaped NUL": (GOOD + b'{"text": "\\u0000", "label": 0}\n', "row 3: a NUL character"),
    "surrogate": (GOOD + b'{"text": "\\ud800", "label": 0}\n', "row 3: .*not valid Unicode"),
    "mixed schema": (GOOD + b'{"sentence": "x", "label": 0}\n', "row 3: no column 'text'"),
    "null": (GOOD + b'{"text": null, "label": 0}\n', "row 3: column 'text' is None"),
    "number": (GOOD + b'{"text": 7, "label": 0}\n', "row 3: column 'text' is 7"),
    "no label": (GOOD + b'{"text": "x", "label": null}\n', "row 3: no label"),
    "NaN": (GOOD + b'{"text": "x", "label": NaN}\n', "row 3: no label"),
    "minus one": (GOOD + b'{"text": "x", "label": -1}\n', "row 3: no label"),
    "deep": (GOOD + b'{"text": ' + b"[" * 100_000 + b"\n", "row 3: not JSON"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_named_with_its_row(case: str, tmp_path: Path) -> None:
    content, message = FILES[case]
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert "train.jsonl" in str(caught.value)


@pytest.mark.slow
def test_a_line_of_a_hundred_megabytes_is_a_bad_row(tmp_path: Path) -> None:
    with (tmp_path / "train.jsonl").open("wb") as file:
        file.write(GOOD + b'{"text": "' + b"a" * 100_000_000 + b'", "label": 0}\n')
    with pytest.raises(DataError, match=r"row 3:.*has 1\d{8}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label\n", "has no rows"),
        (b"\n", "no header"),
        (b"text,text\na,b\n", "Several have that name"),
        (b"text,label\na,0\nb,1,2\n", "row 2: line 3: 3"),
        ("text,label\nä,0\n".encode() + b"\xff,1\n", "row 2: line 3:.*UTF-8"),
        (b'text,label\n"a,0\nb,1\n', "quote is opened and never closed"),
    ],
)
def test_a_bad_csv_is_named_with_its_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_skip_bad_leaves_out_so_many_rows_and_records_them(tmp_path: Path) -> None:
    bad = b'{"text": "cut\n' + b'{"text": "x", "label": "cat"}\n'
    (tmp_path / "train.jsonl").write_bytes(GOOD + bad)
    with pytest.raises(DataError, match="2 rows cannot be used"):
        read(tmp_path, labels=["no", "yes"], skip_bad=1)
    data = read(tmp_path, labels=["no", "yes"], skip_bad=2)
    assert [skipped["row"] for skipped in data.record["skipped"]["train"]] == [3, 4]
    assert "'cat'" in data.record["skipped"]["train"][1]["reason"]


def test_so_many_bad_rows_as_the_error_says_are_enough_for_all_splits(tmp_path: Path) -> None:
    hidden = b'{"text": "a", "label": null}\n{"text": "b", "label": [0]}\n{"text": "c"}\n'
    train = "".join(json.dumps(row) + "\n" for row in LINES).encode()
    (tmp_path / "train.jsonl").write_bytes(train + b'{"text": null, "label": 0}\n' + hidden[:28])
    other = GOOD.replace(b"fine", b"good").replace(b"bad", b"poor")
    (tmp_path / "test.jsonl").write_bytes(other + b'{"text": 7, "label": 1}\n' + hidden)
    with pytest.raises(DataError, check=fault("unusable")) as caught:
        read(tmp_path)
    assert [len(problem.given) for problem in caught.value.problems] == [2, 4]
    [remedy] = caught.value.problems[-1].remedies
    data = read(tmp_path, skip_bad=int(str(remedy[0]).rstrip(".").split()[-1]))
    skipped = {
        split: [row["row"] for row in rows] for split, rows in data.record["skipped"].items()
    }
    assert skipped == {"train": [41, 42], "test": [3, 4, 5, 6]}


def test_a_damaged_archive_is_said_to_be_damaged(tmp_path: Path) -> None:
    packed = write(tmp_path / "train.jsonl.gz", LINES).read_bytes()
    (tmp_path / "train.jsonl.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path)


def test_a_wrong_column_is_answered_with_the_right_one(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"sentence": "a", "label": 0}])
    with pytest.raises(DataError, match=r"'sentense'.*'sentence'"):
        read(tmp_path, columns={"text": "sentense"})
    config = classification.Config(
        data_dir=tmp_path, columns={"text": "sentence", "label": "lable"}
    )
    (fault,) = classification.check(config)
    assert (fault.kind, fault.given, fault.place.key) == ("no_column", "lable", ("data_dir",))
    assert "'label'" in fault.said


def test_a_folder_without_train_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "trian.jsonl").write_text("x")
    with pytest.raises(DataError, match=r"It holds: trian.jsonl"):
        read(tmp_path)
    with pytest.raises(DataError, check=fault("missing")):
        read(tmp_path / "nowhere")
    write(tmp_path / "train.jsonl", LINES)
    write(tmp_path / "train.jsonl.gz", LINES)
    with pytest.raises(DataError, check=fault("ambiguous")):
        read(tmp_path)


@pytest.mark.parametrize("name", ["with space", "qu'ote\"", "유니코드", "..dots", "trailing"])
def test_odd_folder_names_are_read(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    write(folder / "train.jsonl", LINES)
    (tmp_path / "link").symlink_to(folder)
    expected = read(folder).record["fingerprint"]
    for other in (f"{folder}/", folder / ".." / name, tmp_path / "link"):
        assert read(other).record["fingerprint"] == expected


# Labels, case 49.


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", " 1 ", True, "yes"])
def test_a_label_may_be_a_number_or_a_name(value: Any) -> None:
    assert labels.Classes(("no", "yes"))(value) == 1


def test_names_that_are_numbers_speak_for_themselves() -> None:
    assert labels.Classes(("1", "2"))(2) == 1
    with pytest.raises(labels.Unusable, match="not one of"):
        labels.Classes(("1", "2"))(0)


def test_a_label_mapping_renumbers_and_drops() -> None:
    read_label = labels.Classes({"0": "negative", "2": "positive"}, ("1",))
    assert (read_label(0), read_label(2)) == (0, 1)
    with pytest.raises(labels.Dropped):
        read_label(1)


def test_minus_one_may_be_a_class() -> None:
    read_label = labels.Classes({"-1": "down", "1": "up"})
    assert read_label(-1) == 0
    assert not read_label.is_hidden(-1)


@pytest.mark.parametrize("value", [2, "maybe", float("inf")])
def test_a_label_out_of_range_is_unusable(value: Any) -> None:
    with pytest.raises(labels.Unusable):
        labels.Classes(("no", "yes"))(value)


def test_inferred_labels_are_in_the_order_of_their_numbers() -> None:
    assert labels.infer([10, 2, 1, None, -1], (), "x") == ("1", "2", "10")
    with pytest.raises(DataError, check=fault("not_classes")):
        labels.infer([0.5, 1.5], (), "x")
    with pytest.raises(DataError, match="1 distinct"):
        labels.infer([1, 1], (), "x")


def test_a_label_that_only_test_has_stops_with_its_row(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", LINES)
    write(tmp_path / "test.jsonl", [{"text": "new", "label": 2}])
    with pytest.raises(DataError, match=r"test.jsonl: 1 row cannot be used:\n  row 1: the label 2"):
        read(tmp_path)


# Splits.


def test_a_shared_input_stays_in_test_and_leaves_train(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [*LINES, {"text": " Example\t3", "label": 0}])
    write(tmp_path / "validation.jsonl", [LINES[4], LINES[5], {"text": "other", "label": 1}])
    write(tmp_path / "test.jsonl", [LINES[3], {"text": "EXAMPLE 5", "label": 1}])
    data = read(tmp_path)
    assert texts(data, "test") == ["example 3", "EXAMPLE 5"]
    assert texts(data, "validation") == ["example 4", "other"]
    assert len(data.splits["train"]) == 41 - 4
    assert data.record["overlap"] == {
        "validation": {"also_in_test": {"count": 1, "rows": [2]}},
        "train": {
            "also_in_validation": {"count": 2, "rows": [5, 6]},
            "also_in_test": {"count": 3, "rows": [4, 6, 41]},
        },
    }
    with pytest.raises(DataError, match=r"row 2.*row 2"):
        read(tmp_path, overlap="refuse")


def test_a_pair_is_another_input_than_its_halves(tmp_path: Path) -> None:
    def pair(a: str, b: str) -> dict[str, Any]:
        return {"a": a, "b": b, "label": 0}

    write(
        tmp_path / "train.jsonl", [pair("ab", "c"), pair("a", "bc"), {**pair("x", "y"), "label": 1}]
    )
    write(tmp_path / "validation.jsonl", [pair("q", "r")])
    write(tmp_path / "test.jsonl", [pair("A B", "C")])
    data = read(tmp_path, columns={"text": "a", "pair": "b"})
    assert [(row["text"], row["pair"]) for row in data.splits["train"]] == [("a", "bc"), ("x", "y")]


def hidden_test(tmp_path: Path, label: Any) -> None:
    write(tmp_path / "train.jsonl", LINES)
    write(tmp_path / "validation.jsonl", [{"text": f"v {i}", "label": i % 2} for i in range(6)])
    row = {"text": "t"} if label == "absent" else {"text": "t", "label": label}
    write(tmp_path / "test.jsonl", [row])


@pytest.mark.parametrize("label", [-1, None, "absent"])
def test_hidden_test_labels_make_the_validation_split_the_test(label: Any, tmp_path: Path) -> None:
    hidden_test(tmp_path, label)
    data = read(tmp_path)
    assert texts(data, "test") == [f"v {i}" for i in range(6)]
    assert len(data.splits["validation"]) == 4
    assert {row["label"] for split in data.splits.values() for row in split} == {0, 1}


def test_hidden_scores_make_the_validation_split_the_test(tmp_path: Path) -> None:
    hidden_test(tmp_path, -1.0)
    assert len(read(tmp_path, regression=True).splits["test"]) == 6


def test_carving_goes_by_distinct_input_and_by_class(tmp_path: Path) -> None:
    rows = [{"text": f"{i % 100}", "label": int(i % 100 < 20)} for i in range(300)]
    write(tmp_path / "train.jsonl", rows)
    data = read(tmp_path)
    held, kept = texts(data, "validation"), texts(data, "train")
    assert len(held) == 30
    assert len(set(held)) == 10
    assert not set(held) & set(kept)
    assert sum(row["label"] for row in data.splits["validation"]) == 6
    assert texts(read(tmp_path), "validation") == held
    assert texts(read(tmp_path, split_seed=1), "validation") != held


def test_one_table_becomes_three_splits_by_distinct_input_and_class(tmp_path: Path) -> None:
    rows = [{"text": f"{i % 100}", "label": int(i % 100 < 20)} for i in range(300)]
    write(tmp_path / "train.jsonl", rows)
    data = read(tmp_path, test_share=0.2)
    sizes = {split: len(set(texts(data, split))) for split in data.splits}
    assert sizes == {"train": 70, "validation": 10, "test": 20}
    of_first = {s: sum(row["label"] for row in rows) for s, rows in data.splits.items()}
    assert of_first == {"train": 3 * 14, "validation": 3 * 2, "test": 3 * 4}
    kinds = [note["kind"] for note in data.record["notes"]]
    assert kinds.index("test_carved") < kinds.index("validation_carved")
    assert texts(read(tmp_path, test_share=0.2), "test") == texts(data, "test")
    assert texts(read(tmp_path, test_share=0.2, split_seed=1), "test") != texts(data, "test")
    with pytest.raises(ValueError, match="leave nothing to train on"):
        read(tmp_path, test_share=0.6, validation_share=0.4)


def test_a_share_for_test_leaves_the_splits_that_there_are(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", LINES)
    write(tmp_path / "validation.jsonl", [{"text": f"v {i}", "label": i % 2} for i in range(6)])
    data = read(tmp_path, test_share=0.25)
    assert texts(data, "validation") == [f"v {i}" for i in range(6)]
    assert (len(data.splits["train"]), len(data.splits["test"])) == (30, 10)
    write(tmp_path / "test.jsonl", [{"text": "t", "label": 0}])
    assert texts(read(tmp_path, test_share=0.25), "test") == ["t"]


def test_one_distinct_input_cannot_be_carved(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [LINES[0]] * 3)
    with pytest.raises(DataError, match="1 distinct input"):
        read(tmp_path, labels=["a", "b"])


def test_the_last_rows_of_train_can_be_validation(tmp_path: Path) -> None:
    rows = [{"text": f"{i % 8}", "label": i % 2} for i in range(10)]  # 8 and 9 are 0 and 1 again
    write(tmp_path / "train.jsonl", rows)
    data = read(tmp_path, validation_last=3)
    assert texts(data, "validation") == ["7", "0", "1"]
    assert texts(data, "train") == ["2", "3", "4", "5", "6"]
    repeated = {"kind": "rows_repeated", "rows": 2, "split": "train", "other": "validation"}
    assert repeated in data.record["notes"]
    with pytest.raises(DataError, match=r"validation_last is 10.*has 10"):
        read(tmp_path, validation_last=10)


def test_cleaning_takes_out_html_and_collapses_white_space(tmp_path: Path) -> None:
    """A tag leaves a space: words on both sides of a line break stay apart."""
    for raw, expected in (
        ("It was<br /><br />good &amp; <b>long</b>.", "It was good & long ."),
        ("a\n\tb   c ", "a b c"),
        ("a < b, I <3 you > me", "a < b, I <3 you > me"),
        ("<!-- no\nmore -->&lt;b&gt; stays", "<b> stays"),
    ):
        write(tmp_path / "train.jsonl", [{"text": raw, "label": 0}, {"text": "x", "label": 1}])
        data = read(tmp_path, clean=True)
        assert expected in texts(data, "train") + texts(data, "validation")
        config = classification.Config(source="x:y", labels=["a", "b"], clean=True)
        assert classification.read_inputs(config, raw)[0]["text"] == expected


def test_ratio_comes_before_the_cap_and_both_are_recorded(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", LINES)
    write(tmp_path / "test.jsonl", [{"text": f"t{i}", "label": 0} for i in range(9)])
    half = read(tmp_path, train_data_ratio=0.5)
    assert half.record["validation/original_train_data_size"] == 36
    assert half.record["validation/sliced_train_data_size"] == 18
    capped = read(tmp_path, train_data_ratio=0.5, max_train_samples=4, max_test_samples=5)
    assert capped.record["sizes"] == {"train": 4, "validation": 4, "test": 5}
    assert set(texts(capped, "train")) <= set(texts(half, "train"))
    with pytest.raises(ValueError, match="less than or equal to 1"):
        classification.Config(data_dir=tmp_path, train_data_ratio=50)


def test_the_fingerprint_changes_with_a_letter_a_label_and_the_order(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    write(tmp_path / "validation.jsonl", [{"text": "v", "label": 0}])
    write(tmp_path / "test.jsonl", [{"text": "t", "label": 0}])
    found = set()
    for train in (
        rows,
        rows[::-1],
        [{**rows[0], "text": "A"}, rows[1]],
        [{**rows[0], "label": 1}, rows[1]],
    ):
        write(tmp_path / "train.jsonl", train)
        found.add(read(tmp_path, labels=["x", "y"]).record["fingerprint"]["train"])
    assert len(found) == 4


INPUTS = st.lists(
    st.sampled_from(["a", "A", " a", "b", "B b", "bb", "c", "d", "é", "É"]), min_size=1
)


@settings(max_examples=200, deadline=None)
@given(train=INPUTS, validation=INPUTS, test=INPUTS)
def test_no_input_stands_in_two_splits(train: list, validation: list, test: list) -> None:
    given_splits = {
        split: Rows(
            {
                "index": list(range(len(inputs))),
                "text": inputs,
                "key": [_texts.same_text([text]) for text in inputs],
            }
        )
        for split, inputs in (("train", train), ("validation", validation), ("test", test))
    }

    def plain(rows: Rows) -> set[str]:
        return {"".join(text.lower().split()) for text in rows.columns["text"]}

    try:
        used, _ = splits.disjoint(given_splits)
    except DataError:  # nothing is left of one
        rest = plain(given_splits["test"])
        assert plain(given_splits["validation"]) <= rest or plain(given_splits["train"]) <= (
            rest | plain(given_splits["validation"])
        )
        return
    kept = {split: plain(rows) for split, rows in used.items()}
    assert used["test"].columns["text"] == test
    assert not kept["train"] & (kept["validation"] | kept["test"])
    assert not kept["validation"] & kept["test"]
    assert set.union(*kept.values()) == set.union(*map(plain, given_splits.values()))


# Other sources.


def test_source_and_labels_must_be_said() -> None:
    with pytest.raises(ValueError, match="no data"):
        classification.Config()
    with pytest.raises(ValueError, match="class names of a hub data set"):
        classification.Config(hub={"path": "a/b"})
    with pytest.raises(ValueError, match="both given"):
        classification.Config(data_dir="x", files={"train": "y"})


def test_a_source_function_is_called_by_read_and_not_by_check() -> None:
    config = classification.Config(source="no.such.module:rows", labels=["a", "b"])
    assert classification.check(config) == []
    with pytest.raises(ConfigError, match=r"no.such.module"):
        classification.read(config, Paths(), 0)


def test_digits_can_be_asked_for_in_part() -> None:
    config = images.Config(
        source="graftlab.data.digits:rows", options={"digits": [5, 6]}, labels=["5", "6"]
    )
    data = images.read(config, Paths(), 0)
    assert {row["label"] for row in data.splits["test"]} == {0, 1}
    # scikit-learn's table: 182 fives and 181 sixes
    assert sum(map(len, data.splits.values())) == 182 + 181
    with pytest.raises(ConfigError, match="options"):
        images.read(config.model_copy(update={"options": {"digit": 5}}), Paths(), 0)


def hub_errors() -> dict[str, tuple[BaseException, type[Exception], str]]:
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub import errors
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

    # httpx, or httpx2: whichever this version of huggingface_hub uses
    httpx = importlib.import_module(errors.Response.__module__.partition(".")[0])

    def status(code: int, kind: type = HfHubHTTPError) -> BaseException:
        request = httpx.Request("GET", "https://huggingface.co")
        return kind("x", response=httpx.Response(code, request=request))

    return {
        "script": (
            RuntimeError("Dataset scripts are no longer supported, but found trec.py"),
            Refused,
            "refs/convert/parquet",
        ),
        "gated": (status(403, GatedRepoError), DataError, "accept its terms"),
        "401": (status(401), DataError, "401"),
        "403": (status(403), DataError, r"\(403\)"),
        "404": (DatasetNotFoundError("doesn't exist on the Hub"), DataError, "404"),
        "429": (status(429), DataError, "too many requests"),
        "503": (status(503), DataError, r"fault \(503\)"),
        "offline": (OfflineModeIsEnabled("x"), DataError, "offline mode is on"),
        "no network": (
            ConnectionError("Couldn't reach 'x' on the Hub (ConnectError)"),
            DataError,
            "cannot be reached",
        ),
        "partial": (DatasetGenerationError("cut"), DataError, "Remove its folder under cache"),
        "config": (ValueError("BuilderConfig 'x' not found."), ConfigError, "task.hub.name"),
    }


def test_each_failure_of_the_hub_has_its_own_words() -> None:
    said = set()
    for error, kind, words in hub_errors().values():
        found = hub.explain(error, Hub(path="a/b"), Path("cache"))
        assert type(found) is kind
        with pytest.raises(kind, match=words):
            raise found
        said.add(str(found))
    assert len(said) == len(hub_errors())
    with pytest.raises(ZeroDivisionError):
        hub.explain(ZeroDivisionError(), Hub(path="a/b"), Path("cache"))


def test_hub_rows_keep_images_encoded_and_splits_are_chosen_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = {"img": [{"bytes": encoded(ramp()), "path": None}] * 3, "label": [0, 1, 0]}
    split = datasets.Dataset.from_dict(data, features=features)
    asked = {}

    def load_dataset(*args: Any, **options: Any) -> Any:  # stands for the network
        asked.update(options)
        return datasets.DatasetDict({"train": split, "dev": split.select([1])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = hub.load(Hub(path="a/b", revision="abc", validation="dev"), tmp_path)
    assert asked == {"revision": "abc", "cache_dir": str(tmp_path)}
    assert {ours: theirs for ours, (theirs, _) in found.items()} == {
        "train": "train",
        "validation": "dev",
    }
    rows = list(found["train"][1])
    assert [(index, row["label"]) for index, row in rows] == [(0, 0), (1, 1), (2, 0)]
    assert rows[0][1]["img"]["bytes"] == encoded(ramp())
    with pytest.raises(ConfigError, match=r"task.hub.validation:.*'dev'"):
        hub.load(Hub(path="a/b", validation="deb"), tmp_path)


def test_a_local_folder_that_shadows_a_hub_id_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"data_dir: ./owner/name"):
        hub.load(Hub(path="owner/name"), tmp_path)


# Images, case 51.


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(mode: str = "L") -> Image.Image:
    return Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = pictures.decode(encoded(ramp(mode)))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(ramp(mode).convert("RGB")))


def test_cmyk_becomes_rgb() -> None:
    assert pictures.decode(encoded(ramp("CMYK"), "JPEG")).mode == "RGB"


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = Image.fromarray((np.arange(64, dtype=np.uint16) * 256).reshape(8, 8))
    np.testing.assert_array_equal(
        np.asarray(pictures.decode(encoded(deep)))[..., 0], np.asarray(ramp())
    )


def test_a_rotated_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn 90 degrees clockwise to see it upright
    image = pictures.decode(encoded(ramp(), "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(image)[..., 0], np.rot90(np.asarray(ramp()), -1))


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(pictures.decode(data)).max() == 0


def bad_images() -> dict[str, bytes]:
    png = encoded(ramp())
    flipped = bytearray(png)
    flipped[45] ^= 0xFF
    bomb = encoded(Image.new("1", (10_000, 10_000)))
    return {
        "empty": b"",
        "text": b"hello",
        "cut": png[:40],
        "flipped": bytes(flipped),
        "bomb": bomb,
    }


@pytest.mark.quick("cut")
@pytest.mark.parametrize("case", ["empty", "text", "cut", "flipped", "bomb"])
def test_a_bad_image_is_left_out_with_its_reason(case: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for i in range(3):
                array = np.zeros((4, 4), dtype=np.uint8)
                array[0] = [i, len(split), len(label), ord(label[0])]
                Image.fromarray(array).save(folder / f"{i}.png")
    (tmp_path / "train" / "cat" / "9.png").write_bytes(bad_images()[case])
    config = images.Config(data_dir=tmp_path)
    with pytest.raises(DataError, match=r"9\.png: "):
        images.read(config, Paths(), 0)
    data = images.read(images.Config(data_dir=tmp_path, skip_bad=1), Paths(), 0)
    assert [bad["row"] for bad in data.record["skipped"]["train"]] == [4]
    assert data.problem.labels == ("cat", "dog")
    assert len(data.splits["test"]) == 6


def test_raw_pixels_and_base64_give_the_same_image(tmp_path: Path) -> None:
    array = np.asarray(ramp())
    raw = {"shape": [8, 8], "bytes": base64.b64encode(array.tobytes()).decode()}
    png = {"path": "x.png", "bytes": base64.b64encode(encoded(ramp())).decode()}
    for cell in (raw, png, {"bytes": encoded(ramp()), "path": None}, encoded(ramp()), array):
        picture = pictures.find(cell, tmp_path)
        np.testing.assert_array_equal(np.asarray(pictures.decode(picture))[..., 0], array)
    with pytest.raises(labels.Unusable, match="3 bytes for an image"):
        pictures.find({"shape": [2, 2], "bytes": b"abc"}, tmp_path)


SIZES = {"train": 1000, "test": 33}


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("train", [("train", 0, 1000)]),
        ("train[:50]", [("train", 0, 50)]),
        ("train[-100:]", [("train", 900, 1000)]),
        ("train[10%:20%]", [("train", 100, 200)]),
        ("test[50%:]", [("test", 16, 33)]),  # 16.5 rounds to the even 16, as Python does
        (" train[:1] + test ", [("train", 0, 1), ("test", 0, 33)]),
    ],
)
def test_parts_of_a_split(expression: str, rows: list[tuple[str, int, int]]) -> None:
    assert expressions.parts(expression, SIZES, "task.hub.train") == rows
    assert Hub(path="a/b", train=expression).train == expression


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("trian[:50]", "task.hub.test:.*'trian'.*'train'"),
        ("train[2000:]", "has 1000.*has 33"),
        ("test[:5%](pct1_dropremainder)", "less than 100"),
    ],
)
def test_parts_that_are_not_there(expression: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        expressions.parts(expression, SIZES, "task.hub.test")


@pytest.mark.parametrize("expression", ["train[5]", "train[1.5:]", "train[a:]", "train+", ""])
def test_what_is_no_expression_is_refused_before_anything_is_loaded(expression: str) -> None:
    with pytest.raises(ValueError, match="String should match pattern"):
        Hub(path="a/b", train=expression)


def test_parts_that_share_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": [str(i) for i in range(10)]})
    sets = datasets.DatasetDict({"train": rows})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: sets)

    def load(**splits: str) -> dict[str, list[str]]:
        found = hub.load(Hub(path="a/b", **splits), tmp_path)
        return {ours: [row["text"] for _, row in rows] for ours, (_, rows) in found.items()}

    assert load(train="train[:-2]", test="train[-2:]") == {
        "train": list("01234567"),
        "test": ["8", "9"],
    }
    with pytest.raises(ConfigError, match=r"rows 7 to 7.*train\[:7\]"):
        load(train="train[:8]", test="train[7:]")
    with pytest.raises(ConfigError, match="rows 0 to 4"):
        load(test="train[:50%]")
    with pytest.raises(ConfigError, match="rows 2 to 2"):
        load(train="train[:3]+train[2:4]")
