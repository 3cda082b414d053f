"""Every catalogue entry reads the rows that the hub (or the package) gives for it."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graftlab import registry, runfile
from graftlab.config import Paths, read_yaml
from graftlab.config import read as config_of
from graftlab.data import pictures
from graftlab.errors import ConfigError
from graftlab.runfile import catalogue, measures

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
SHARED_NAMES = {
    "mnli_mismatched": "mnli",
    "tweet_sentiment_binary": "tweet_eval_sentiment",
    "tweet_offensive": "tweet_eval_offensive",
}


def png(value: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


# Field names, types and label encodings as the hub's data viewer shows them: three train rows, and
# what a row's text, pair and label become.
SCHEMAS: dict[str, dict[str, Any]] = {
    "sst2": {"sentence": "a b", "idx": 0},
    "sst2_setfit": {"text": "a b", "label_text": "negative"},
    "cola": {"sentence": "a b", "idx": 0},
    "mrpc": {"sentence1": "a b", "sentence2": "c", "idx": 0},
    "qqp": {"question1": "a b", "question2": "c", "idx": 0},
    "mnli": {"premise": "a b", "hypothesis": "c", "idx": 0},
    "mnli_mismatched": {"premise": "a b", "hypothesis": "c", "idx": 0},
    "snli": {"premise": "a b", "hypothesis": "c"},
    "qnli": {"question": "a b", "sentence": "c", "idx": 0},
    "rte": {"sentence1": "a b", "sentence2": "c", "idx": 0},
    "stsb": {"sentence1": "a b", "sentence2": "c", "idx": 0},
    "imdb": {"text": "a b"},
    "trec": {"text": "a b", "fine_label": 3},
    "subj": {"text": "a b", "label_text": "objective"},
    "ag_news": {"text": "a b"},
    "mr": {"text": "a b"},
    "cr": {"text": "a b", "label_text": "negative"},
    "proscons": {"text": "a b"},
    "tweet_sentiment_binary": {"text": "a b"},
    "tweet_offensive": {"text": "a b"},
    "nsmc": {"id": "1", "document": "a b"},
    "cifar10": {"img": None},
    "mnist": {"image": None},
    "svhn": {"image": None},
    "eurosat": {"image": None, "image_id": "Forest_1.jpg"},
    "dtd": {"image": None},
    "gtsrb": {"image": None},
    "resisc45": {"image": None, "image_id": "airplane_001.jpg"},
    "sun397": {"image": None},
}
LABEL_COLUMNS = {"trec": "coarse_label"}
TEXT_FIRST = ("question1", "question", "sentence1", "premise", "sentence", "document", "text")
NUM_CLASSES = {  # of the papers and the sources' tables
    "sst2": 2, "sst2_setfit": 2, "cola": 2, "mrpc": 2, "qqp": 2, "mnli": 3, "mnli_mismatched": 3,
    "snli": 3, "qnli": 2, "rte": 2, "stsb": 1,
    "imdb": 2, "trec": 6, "subj": 2, "ag_news": 4, "mr": 2, "cr": 2, "proscons": 2,
    "tweet_sentiment_binary": 2, "tweet_offensive": 2, "nsmc": 2, "digits": 10, "cifar10": 10, "mnist": 10,
    "svhn": 10, "eurosat": 10, "dtd": 47, "gtsrb": 43, "resisc45": 45, "sun397": 397,
    # Their rows are read in tests/tasks/test_multiple_choice.py.
    "arc_easy": 4, "arc_challenge": 4, "openbookqa": 4, "hellaswag": 4, "piqa": 2, "siqa": 3, "winogrande": 2,
    "boolq": 2,
}  # fmt: skip


def entry(name: str, **over: Any) -> tuple[Any, Any]:
    fields = read_yaml(registry.catalogue("tasks")[name])
    assert fields.pop("about")
    fields.pop("aliases")
    module = registry.find("tasks", fields["kind"])
    if not {"hub", "source"} & fields.keys() and "data_dir" not in over:
        over["source"] = "x:y"  # an entry for files that only the user has
    return module, module.Config(**{"name": name, **fields, **over})


def hub_rows(name: str, raw_labels: list[Any], offset: int = 0) -> list[dict[str, Any]]:
    rows = []
    for i, label in enumerate(raw_labels):
        row = {**SCHEMAS[name], LABEL_COLUMNS.get(name, "label"): label}
        for field, value in row.items():
            if value is None and field != "label":
                row[field] = {"path": None, "bytes": png(10 * offset + i)}
            elif value == "a b":
                row[field] = f"a b {offset} {i}"
        rows.append(row)
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_catalogue_has_these_entries() -> None:
    # texts that are written have a file of their own, tests/tasks/test_text_catalogue.py
    entries = [
        n
        for n, path in registry.catalogue("tasks").items()
        if "kind: generation" not in path.read_text()
    ]
    assert sorted(NUM_CLASSES) == sorted(entries)


@pytest.mark.parametrize("name", NUM_CLASSES)
def test_an_entry_states_its_classes_without_reading_a_row(name: str) -> None:
    module, config = entry(name)
    assert module.check(config) == []
    assert module.problem(config).num_outputs == NUM_CLASSES[name]


@pytest.mark.parametrize("name", SCHEMAS)
def test_three_rows_of_the_hub_become_inputs_and_labels(name: str, tmp_path: Path) -> None:
    raw = {"stsb": [2.5, 0.0, 5.0], "tweet_sentiment_binary": [0, 1, 2], "snli": [0, -1, 2]}
    expected = {"stsb": [2.5, 0.0, 5.0], "tweet_sentiment_binary": [0, 1], "snli": [0, 2]}
    write(tmp_path / "train.jsonl", hub_rows(name, raw.get(name, [0, 1, 1])))
    write(tmp_path / "validation.jsonl", hub_rows(name, [0, 0], 1))
    write(tmp_path / "test.jsonl", hub_rows(name, [0], 2))
    module, config = entry(name, data_dir=tmp_path)
    assert module.check(config) == []
    data = module.read(config, Paths(), 0)
    assert [row["label"] for row in data.splits["train"]] == expected.get(name, [0, 1, 1])
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": len(expected.get(name, [0, 1, 1])),
        "validation": 2,
        "test": 1,
    }
    first = data.splits["train"][0]
    if "image" in first:
        assert pictures.decode(first["image"]).size == (4, 4)
    else:
        assert first["text"] == "a b 0 0"
        assert first["pair"] == ("c" if "c" in SCHEMAS[name].values() else None)


GLUE = ["sst2", "cola", "mrpc", "qqp", "mnli", "qnli", "rte"]


@pytest.mark.parametrize("name", GLUE)
def test_glue_reports_on_the_official_validation_split(name: str, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", hub_rows(name, [0, 1] * 10))
    write(tmp_path / "validation.jsonl", hub_rows(name, [0, 1, 1], 1))
    write(tmp_path / "test.jsonl", hub_rows(name, [-1, -1], 2))
    module, config = entry(name, data_dir=tmp_path)
    data = module.read(config, Paths(), 0)
    assert [row["label"] for row in data.splits["test"]] == [0, 1, 1]
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 18,
        "validation": 2,
        "test": 3,
    }


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("agnews", "ag_news"),
        ("tweet_sentiment_binary", "tweet_sentiment_binary"),
        ("tweet_offensive", "tweet_offensive"),
        ("sst-2", "sst2"),
        ("sts-b", "stsb"),
    ],
)
def test_the_names_of_the_sources_are_accepted(spelling: str, name: str) -> None:
    assert catalogue()[spelling]["name"] == name


def test_an_entry_for_files_of_ones_own_asks_for_them(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("backbone: {model: bert}\ntask: {name: proscons}\nmethod: {name: full}\n")
    with pytest.raises(ConfigError, match="data_dir"):
        runfile.resolve(config_of(path))
    write(tmp_path / "train.jsonl", hub_rows("proscons", ["pros", 0, 1]))
    found = runfile.resolve(config_of(path, [f"task.data_dir={tmp_path}"]))
    assert found.task.config.labels == ("cons", "pros")


def test_the_last_rows_of_mnli_are_as_many_as_its_mismatched_validation() -> None:
    """9832: the size of `validation_mismatched` on the hub."""
    config = entry("mnli_mismatched")[1]
    assert (config.hub.test, config.hub.validation) == ("validation_mismatched", None)
    assert config.validation_last == 9832


def test_metrics_of_every_entry_exist() -> None:
    for name in NUM_CLASSES:
        assert set(entry(name)[1].metrics) <= set(measures.names()), name


@pytest.mark.quick("qnli", "mnist")
@pytest.mark.parametrize(
    "name", sorted({*SCHEMAS} - {"eurosat", "dtd", "gtsrb", "resisc45", "sun397", "svhn"})
)
def test_the_real_rows_are_read_whole(name: str) -> None:
    folder = SHARED / SHARED_NAMES.get(name, name)
    if not folder.exists():
        pytest.skip("the shared data sets are not beside this clone")
    module, config = entry(name, data_dir=folder)
    data = module.read(config, Paths(), 0)
    manifest = json.loads((SHARED / "MANIFEST.json").read_text())["datasets"][folder.name]["splits"]
    official = "test" if "test" in manifest else "validation"
    counts = manifest[official].get("label_counts")
    found = {str(c): 0 for c in range(NUM_CLASSES[name])}
    for row in data.splits["test"]:
        if counts and data.problem.kind == "classes":
            found[str(row["label"])] += 1
    if name == "tweet_sentiment_binary":
        assert found == {"0": counts["0"], "1": counts["2"]}
    elif counts and data.problem.kind == "classes":
        assert found == counts
    else:
        assert len(data.splits["test"]) == manifest[official]["rows"]
    assert data.record["skipped"] == {}
    assert len(data.splits["validation"]) > 0
