"""The data that `prepare` shows and writes are those that a run trains on."""

import gzip
import io
import json
import shutil

import numpy as np
import pytest
from faults import fault
from PIL import Image
from typer.testing import CliRunner

from graftlab import cli, config, runfile
from graftlab.data.readers import MAX_LINE
from graftlab.errors import ConfigError
from graftlab.planning import preparation
from graftlab.planning import rows as written

WORDS = ("poor", "fine", "so so")


def run_file(folder, count=30, splits=("train", "validation", "test"), **task):
    """Write rows of three classes and a run file; a word more in each third row."""
    data = folder / "data"
    data.mkdir()
    for number, split in enumerate(splits):
        rows = [
            {
                "text": f"{WORDS[i % 3]} {'x' * (i % 4)} {number}{i}",
                "label": "abc"[i % 3],
                "more": i,
            }
            for i in range(count if split == "train" else 9)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (data / f"{split}.jsonl").write_text(text)
    values = {
        "backbone": {"kind": "tiny", "max_length": 64},
        "task": {"kind": "classification", "data_dir": str(data), **task},
        "method": {"name": "lora"},
        "paths": {"cache": str(folder / "cache")},
    }
    path = folder / "run.yaml"
    path.write_text(config.dump(values))
    return path


def prepared(path, *overrides):
    return preparation.prepare(runfile.resolve(config.read(path, overrides)))


def rows_of(path, overrides=()):
    """Return the rows that a run with these overrides reads, without their places in the files."""
    file = runfile.resolve(config.read(path, overrides))
    data = file.task.module.read(file.task.config, file.paths, file.seed)
    return {s: [{**row, "index": None} for row in rows] for s, rows in data.splits.items()}


def test_sizes_labels_and_lengths_are_those_of_the_rows(tmp_path):
    found = prepared(run_file(tmp_path))
    assert found.record["sizes"] == {"train": 30, "validation": 9, "test": 9}
    assert preparation.labels(found)["validation"] == {"a": 3, "b": 3, "c": 3}
    # the tiny tokenizer has a token a byte, and one at either end
    lengths = sorted(len(row["text"].encode()) + 2 for row in found.data.splits["train"])
    spread = found.lengths["train"]
    assert (spread["shortest"], spread["longest"]) == (lengths[0], lengths[-1])
    assert spread["median"] == lengths[14]


def test_what_was_cut_or_dropped_is_said(tmp_path):
    path = run_file(tmp_path, drop_labels=["c"], max_length=10)
    result = CliRunner().invoke(cli.app, ["prepare", str(path)])
    lines = [line.strip() for line in result.stdout.splitlines()]
    train = lines[lines.index("train          20 rows") :]
    assert "10 rows left out by their label" in train[:6]
    long = [row for row in rows_of(path)["train"] if len(row["text"].encode()) + 2 > 10]
    assert f"{len(long)} rows cut" in train[:6]
    assert "longest input  10 tokens" in lines
    assert "train:\n  index" in result.stdout


TASKS = {
    "as it is": {},
    "carved, without test": {"splits": ("train",)},
    "test from validation": {"splits": ("train", "validation")},
    "sampled": {"train_data_ratio": 0.5, "max_test_samples": 4},
    "without a class": {"drop_labels": ["b"]},
    "carved by hand": {"splits": ("train", "test"), "validation_last": 4},
    "options that repeat": {"splits": ("train",), "validation_share": 0.4, "train_data_ratio": 0.5},
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_is_written_is_read_back_as_the_same_rows(tmp_path, task):
    path, out = run_file(tmp_path, **task), tmp_path / "out"
    use = written.write(prepared(path), str(path), (), out)
    assert rows_of(path, use) == rows_of(path)
    with gzip.open(out / "train.jsonl.gz", "rt") as file:
        assert set(json.loads(next(file))) == {"text", "label", "more"}
    assert not list(tmp_path.glob("*.partial"))


def test_texts_to_write_are_read_back_too_and_their_columns_shown(tmp_path):
    task = {
        "kind": "generation",
        "prompt": "{text}:",
        "completion": " {label}",
        "splits": ("train",),
    }
    path, out = run_file(tmp_path, **task), tmp_path / "out"
    use = written.write(prepared(path), str(path), (), out)
    assert rows_of(path, use) == rows_of(path)
    shown = CliRunner().invoke(cli.app, ["prepare", str(path)]).stdout
    assert "text   poor  00\n" not in shown  # white space is made one
    assert "text   poor 00\n" in shown


def test_files_named_one_by_one_and_overrides_are_read_back_too(tmp_path):
    path = run_file(tmp_path)
    files = {s: str(tmp_path / "data" / f"{s}.jsonl") for s in ("train", "test")}
    overrides = [
        "task.data_dir=null",
        f"task.files={json.dumps(files)}",
        "task.max_train_samples=7",
    ]
    use = written.write(prepared(path, *overrides), str(path), overrides, tmp_path / "out")
    assert rows_of(path, [*overrides, *use]) == rows_of(path, overrides)


def test_the_same_rows_are_the_same_bytes(tmp_path):
    path = run_file(tmp_path)
    for name in ("one", "two"):
        written.write(prepared(path), str(path), (), tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    path = run_file(tmp_path)
    with pytest.raises(ConfigError, check=fault("taken")):
        written.write(prepared(path), str(path), (), tmp_path)


def images_of(path, overrides=()):
    """Return label and pixels of each image that a run with these overrides reads, by split."""
    file = runfile.resolve(config.read(path, overrides))
    data = file.task.module.read(file.task.config, file.paths, file.seed)
    return {
        split: [(row["label"], decode(row["image"])) for row in rows]
        for split, rows in data.splits.items()
    }


def decode(image):
    """Return an image's size and pixels."""
    if isinstance(image, np.ndarray):
        return image.shape, image.tobytes()
    opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
    return opened.size, opened.tobytes()


def test_pixels_are_shown_by_their_form_and_written_as_they_are(tmp_path):
    found = prepared("quickstart/digits")
    assert found.lengths == {}
    assert preparation.first_rows(found)["train"][0]["image"] == "<8 x 8 pixels>"
    use = written.write(found, "quickstart/digits", (), tmp_path / "out")
    assert images_of("quickstart/digits", use) == images_of("quickstart/digits")


def test_a_folder_of_images_is_written_with_the_images_in_it(tmp_path):
    for i in range(24):
        file = tmp_path / "parts" / ("rust", "clean")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 6), (9 * i, i, 7)).save(file)
    path = tmp_path / "run.yaml"
    path.write_text(
        "backbone: {kind: tiny, modality: images}\nmethod: {name: lora}\n"
        "task: {kind: images, files: {train: parts}, test_share: 0.25}\n"
    )
    before = images_of(path)
    use = written.write(prepared(path), str(path), (), tmp_path / "out")
    shutil.rmtree(tmp_path / "parts")
    assert images_of(path, use) == before
    assert {*before} == {"train", "validation", "test"}


def test_keys_of_a_table_that_say_how_it_is_read_are_not_asked_of_what_is_written(tmp_path):
    lines = ["text;label", *(f"größe {i};{'ab'[i % 2]}" for i in range(30))]
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode("cp1252"))
    task = {"files": {"train": str(tmp_path / "a.csv")}, "delimiter": ";", "encoding": "cp1252"}
    path = run_file(tmp_path, data_dir=None, **task)
    use = written.write(prepared(path), str(path), (), tmp_path / "out")
    assert rows_of(path, use) == rows_of(path)


def test_a_row_that_no_line_holds_is_refused_before_the_folder_is_there(tmp_path):
    rows = [{"text": "x" * (MAX_LINE + 1)}]
    with pytest.raises(ConfigError, check=fault("too_long")):
        written.write_rows(tmp_path / "train.jsonl.gz", rows)


def test_what_the_cache_holds_already_is_said(tmp_path, monkeypatch):
    import datasets

    path = run_file(tmp_path, data_dir=None, hub={"path": "acme/MyRows"}, labels=["no", "yes"])
    split = datasets.Dataset.from_dict({"text": ["a", "b", "c", "d"], "label": [0, 1, 0, 1]})
    kept = tmp_path / "cache" / "datasets" / "acme___my_rows" / "default-0" / "0.0.0"

    def load_dataset(*args, **options):  # stands for the network
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "my_rows-train.arrow").write_bytes(b"1234")
        return datasets.DatasetDict({"train": split})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    first, second = prepared(path).cache, prepared(path).cache
    assert (first["was_there"], second["was_there"]) == (False, True)
    assert (first["folder"], first["bytes"]) == (str(kept.parent), 4)
    use = written.write(prepared(path), str(path), (), tmp_path / "out")
    assert rows_of(path, use) == rows_of(path)


def test_each_task_of_a_mixture_is_shown_for_itself(tmp_path):
    (tmp_path / "b").mkdir()
    run_file(tmp_path / "b", count=12)
    other = {"kind": "classification", "as": "other", "data_dir": str(tmp_path / "b" / "data")}
    own = {"kind": "classification", "as": "own", "drop_labels": ["c"]}
    path = run_file(tmp_path)
    tasks = json.dumps([{**own, "data_dir": str(tmp_path / "data")}, other])
    overrides = [f"task={{kind: mixture, tasks: {tasks}, tag: false}}"]
    found = prepared(path, *overrides)
    assert list(found.tasks) == ["own", "other"]
    assert preparation.labels(found.tasks["own"])["train"] == {"a": 10, "b": 10}
    assert preparation.labels(found.tasks["other"])["train"] == {"a": 4, "b": 4, "c": 4}
    assert preparation.labels(found) == {}
    alone = prepared(tmp_path / "b" / "run.yaml")
    assert found.tasks["other"].lengths == alone.lengths
    done = CliRunner().invoke(cli.app, ["prepare", str(path), "--set", overrides[0]])
    assert "task           other\n" in done.stdout
    assert "10 rows left out by their label" in done.stdout


def mixture(folder, *tasks, **fields):
    """Write a run file of several tasks."""
    values = {
        "backbone": {"kind": "tiny", "max_length": 64},
        "task": {"kind": "mixture", "tasks": [*tasks], **fields},
        "method": {"name": "lora"},
    }
    path = folder / "mixed.yaml"
    path.write_text(config.dump(values))
    return path


def of_three(folder):
    """Return three tasks that say in three ways where their rows are; one of them has no test split."""
    tasks = []
    for number, name in enumerate(("alone", "one by one", "both")):
        own = folder / name
        own.mkdir()
        splits = ("train",) if name == "alone" else ("train", "validation", "test")
        run_file(own, count=12 + 3 * number, splits=splits)
        tasks.append({"kind": "classification", "as": name.replace(" ", "-")})
    tasks[0] |= {"data_dir": str(folder / "alone" / "data"), "train_data_ratio": 0.5}
    named = {s: str(folder / "one by one" / "data" / f"{s}.jsonl") for s in ("train", "test")}
    tasks[1] |= {"files": named, "drop_labels": ["b"]}
    tasks[2] |= {"data_dir": str(folder / "both" / "data")}
    return tasks


def test_a_mixture_is_written_with_a_folder_a_task_and_read_back_as_the_same_rows(tmp_path):
    path, out = mixture(tmp_path, *of_three(tmp_path)), tmp_path / "out"
    use = written.write(prepared(path), str(path), (), out)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.gz")) == [
        *("alone/train.jsonl.gz",),
        *(f"both/{split}.jsonl.gz" for split in ("test", "train", "validation")),
        *(f"one-by-one/{split}.jsonl.gz" for split in ("test", "train", "validation")),
    ]
    before = rows_of(path)
    for name in ("alone", "one by one", "both"):
        shutil.rmtree(tmp_path / name)
    assert rows_of(path, use) == before


def test_tasks_that_are_named_alone_are_read_from_the_folder_by_one_key(tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("mood", "size"):
        run_file(tmp_path / "rows")
        (tmp_path / "rows" / "data").rename(tmp_path / "rows" / name)
    each = {"kind": "classification", "labels": [*"abc"]}
    place = str(tmp_path / "rows")
    path = mixture(tmp_path, {"as": "mood"}, {"as": "size"}, each=each, data_dir=place)
    found = prepared(path)
    use = written.write(found, str(path), (), tmp_path / "out")
    assert use == [f"task.data_dir={tmp_path / 'out'}"]
    again = prepared(path, *use)
    assert again.record["fingerprint"] == found.record["fingerprint"]


def test_images_of_a_mixture_are_written_with_the_images_in_them(tmp_path):
    tasks = []
    for name, count in (("metal", 24), ("wood", 16)):
        for i in range(count):
            file = tmp_path / name / ("rust", "clean")[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 6), (9 * i, i, len(name))).save(file)
        files = {"train": str(tmp_path / name)}
        tasks.append({"kind": "images", "as": name, "files": files, "test_share": 0.25})
    path = mixture(tmp_path, *tasks)
    overrides = ["backbone={kind: tiny, modality: images}"]
    before = images_of(path, overrides)
    use = written.write(prepared(path, *overrides), str(path), overrides, tmp_path / "out")
    for name in ("metal", "wood"):
        shutil.rmtree(tmp_path / name)
    assert images_of(path, [*overrides, *use]) == before


def test_the_lines_of_a_text_file_are_written_as_rows_of_its_column(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"line {i}\n" for i in range(30)), encoding="utf-8")
    task = {"kind": "generation", "template": "text", "files": {"train": str(tmp_path / "a.txt")}}
    path = run_file(tmp_path, data_dir=None, columns={"text": "line"}, **task)
    use = written.write(prepared(path), str(path), (), tmp_path / "out")
    assert rows_of(path, use) == rows_of(path)
    with gzip.open(tmp_path / "out" / "train.jsonl.gz", "rt") as file:
        assert set(json.loads(next(file))) == {"line"}


def test_with_json_it_is_one_object_with_all_of_it(tmp_path):
    path, out = run_file(tmp_path), tmp_path / "out"
    done = CliRunner().invoke(
        cli.app, ["prepare", str(path), "--out", str(out), "--rows=2", "--json"]
    )
    found = json.loads(done.stdout)
    assert found["use"][0] == f"task.data_dir={out}"
    assert [len(rows) for rows in found["rows"].values()] == [2, 2, 2]
    assert found["labels"]["train"] == {"a": 10, "b": 10, "c": 10}
    assert found["cache"] == {}
