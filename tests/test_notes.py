"""Notes: records with a kind and fields, on disk and in words; what older runs hold is read as well."""

import ast
import json
from pathlib import Path

import pytest

import graftlab
from graftlab.contracts import Note, read_notes, written
from graftlab.contracts.note import fields_of
from graftlab.contracts.words import WORDS
from graftlab.training.state import Position


def test_a_note_comes_back_from_json_as_it_was():
    notes = [
        Note.of("validation_carved", rows=144),
        Note.of("rows_repeated", rows=2, split="train", other="test").within("sst2"),
        Note.of("config_changed", key="task.options.a:b", before=None, now=[1, 2]),
    ]
    assert read_notes(json.loads(json.dumps(written(notes)))) == notes


def test_words_are_made_of_the_fields():
    note = Note.of("validation_carved", rows=144)
    assert str(note) == "validation carved from train: 144 rows"
    assert str(note.within("sst2")) == "sst2: validation carved from train: 144 rows"


def test_a_text_as_older_runs_have_it_is_said_as_it_is():
    for text in ("the validation split is used as test", "braces {rows} and : colons"):
        assert str(Note.read(text)) == text


def test_a_kind_that_only_a_newer_version_knows_is_said_by_its_fields():
    said = str(Note.read({"kind": "moon_phase", "phase": "full"}))
    assert "moon phase" in said
    assert "full" in said


def test_fields_of_another_version_are_still_said():
    assert "7" in str(Note.read({"kind": "validation_carved", "count": 7}))


def test_a_note_without_its_fields_is_a_bug():
    with pytest.raises(AssertionError):
        Note.of("validation_carved", count=1)


def test_every_kind_of_note_that_the_package_makes_has_words_and_every_word_is_used():
    made = set()
    for path in Path(graftlab.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "Note.of(" in text else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Note.of":
                kind = ast.literal_eval(node.args[0])
                made.add(kind)
                given = {keyword.arg for keyword in node.keywords}
                assert given == fields_of(kind) or None in given, (path, kind)  # None: **fields
    assert made | {"said"} == set(WORDS)


def test_the_position_of_a_checkpoint_of_older_versions_keeps_its_reasons():
    old = Position(step=5).as_json() | {"not_exact": ["config changed: seed: 0 -> 1"]}
    position = Position.from_json(json.loads(json.dumps(old)))
    assert position.step == 5
    assert [str(note) for note in position.not_exact] == ["config changed: seed: 0 -> 1"]
    assert Position.from_json(json.loads(json.dumps(position.as_json()))) == position
