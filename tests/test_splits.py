"""How rows are shared out among splits: counts by closed forms, and draws that stay what they were."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from graftlab.data import splits
from graftlab.data.bad_rows import MAX_SHOWN
from graftlab.data.rows import Rows
from graftlab.errors import DataError


def rows(labels: list[Any], start: int = 0) -> Rows:
    """Return rows whose inputs are numbers from `start` on."""
    places = range(start, start + len(labels))
    keys = [splits.digest(str(place)) for place in places]
    texts = [str(place) for place in places]
    return Rows({"index": list(range(len(labels))), "text": texts, "label": labels, "key": keys})


def texts(found: Rows) -> list[int]:
    return [int(text) for text in found.columns["text"]]


@pytest.mark.parametrize(
    ("labels", "share", "by_class"),
    [
        ([0] * 5, 0.1, {0: 1}),  # 0.5 rounds to none, and there is always one
        ([0] * 4, 0.9, {0: 3}),  # 3.6 rounds to all, and one is left to train on
        ([0] * 10 + [1] * 10 + [2] * 10, 0.1, {0: 1, 1: 1, 2: 1}),
        ([0] * 10 + [1] * 10 + [2] * 10, 0.25, {0: 2, 1: 3, 2: 3}),  # 2.5, 5 and 7.5 in all
        ([0, 0, 1], 0.5, {0: 1}),  # the only row of a class stays
        ([0, 1], 0.5, {0: 1}),  # also where that leaves none: then a first one goes
        ([0.2, 0.9, 1.5, 1.7], 0.5, {0.2: 1, 1.5: 1}),  # scores go by their whole part
    ],
)
def test_of_each_class_its_share_is_carved_on_the_running_total(labels, share, by_class):
    train, validation = splits.carve(rows(labels), share, seed=0)
    assert sorted(texts(train) + texts(validation)) == list(range(len(labels)))
    found = Counter(int(label) for label in validation.columns["label"])
    assert found == {int(label): count for label, count in by_class.items()}


def test_two_classes_of_one_size_do_not_lose_the_same_places():
    _, validation = splits.carve(rows([0] * 50 + [1] * 50), 0.3, seed=0)
    held = texts(validation)
    assert {place for place in held if place < 50} != {place - 50 for place in held if place >= 50}


def test_the_rows_that_a_seed_holds_out_are_those_of_every_version():
    """Of 0.1.0: a run's splits are to be the same when it is run again."""
    _, validation = splits.carve(rows([0, 1] * 20), 0.2, seed=3)
    assert texts(validation) == [4, 9, 20, 25, 28, 32, 33, 39]
    assert texts(splits.sample(rows([0] * 40), 6, 3, "train")) == [0, 2, 8, 11, 12, 35]


def test_a_sample_depends_on_its_seed_and_on_the_split():
    found = [
        texts(splits.sample(rows([0] * 40), 10, seed, split))
        for seed, split in ((0, "train"), (1, "train"), (0, "test"))
    ]
    assert all(sample == sorted(set(sample)) and len(sample) == 10 for sample in found)
    assert len(set(map(tuple, found))) == 3


def test_all_rows_may_be_asked_for_and_more_than_there_are():
    for count in (4, 5):
        assert texts(splits.sample(rows([0] * 4), count, 0, "train")) == [0, 1, 2, 3]


def test_the_last_rows_are_never_all():
    train, validation = splits.carve_last(rows([0, 1, 0, 1]), 3)
    assert (texts(train), texts(validation)) == ([0], [1, 2, 3])
    with pytest.raises(DataError, match="validation_last is 4"):
        splits.carve_last(rows([0, 1, 0, 1]), 4)


@pytest.mark.parametrize("more", [0, 1, 2])
def test_shared_rows_are_named_up_to_a_limit_and_the_others_counted(more):
    count = MAX_SHOWN + more
    shared = {"train": rows([0] * 50, start=100), "test": rows([1] * count, start=120)}
    with pytest.raises(DataError) as caught:
        splits.disjoint(shared, "refuse")
    said = str(caught.value).splitlines()
    named = [line for line in said if re.search(r"train row \d+ = test row \d+", line)]
    assert named == [f"  train row {21 + i} = test row {1 + i}" for i in range(MAX_SHOWN)]
    counted = [int(number) for line in said for number in re.findall(r"^  and (\d+) more", line)]
    assert counted == ([more] if more else [])
    assert len(said) == 1 + MAX_SHOWN + bool(more) + 1
    assert said[0].startswith(f"{count} ")


def test_a_fingerprint_tells_inputs_labels_and_order_apart(tmp_path: Path):
    one = rows([0, 1])
    images = Rows({**one.columns, "image": [b"a", b"b"]})
    others = [
        rows([1, 0]),
        one.take([1, 0]),
        rows([0, 1], start=5),
        Rows({**one.columns, "key": [splits.digest("x"), splits.digest("y")]}),
    ]
    prints = [splits.fingerprint(found) for found in (one, *others)]
    assert len(set(prints)) == len(prints)
    assert splits.fingerprint(images) == prints[0]  # the key stands for it
