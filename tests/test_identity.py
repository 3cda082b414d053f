"""A resume with a changed config.yaml: what is harmless, what is refused, and what an override names."""

import pytest

from graftlab.contracts import Note
from graftlab.errors import ConfigError
from graftlab.runs.identity import compare_config

BEFORE = {"name": "a", "task": {"options": {"a:b": 1, "c": 2}}, "training": {"save_every": 3}}


def changed(**options):
    return {**BEFORE, "task": {"options": {**BEFORE["task"]["options"], **options}}}


def test_a_key_with_a_colon_can_be_overridden_by_its_whole_name():
    now = changed(**{"a:b": 5})
    assert compare_config(BEFORE, now, ("task.options.a:b",)) == [
        Note("config_changed", {"key": "task.options.a:b", "before": 1, "now": 5})
    ]


def test_a_part_of_a_key_overrides_nothing():
    with pytest.raises(ConfigError):
        compare_config(BEFORE, changed(**{"a:b": 5}), ("task.options.a",))


def test_only_whole_sections_and_keys_are_harmless():
    now = {**BEFORE, "name": "b", "training": {"save_every": 9}}
    assert compare_config(BEFORE, now, ()) == []
    before, now = ({**BEFORE, "training": {"save_every_other": value}} for value in (1, 2))
    with pytest.raises(ConfigError):
        compare_config(before, now, ())
