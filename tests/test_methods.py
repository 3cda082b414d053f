"""Every method keeps the promises of `graftlab.testing`; the excuses are counted and documented."""

import re
from pathlib import Path

import pytest

from graftlab import registry
from graftlab.testing.methods import *  # noqa: F403
from graftlab.testing.methods import PROMISES

DOCS = Path(__file__).parents[1] / "docs" / "methods.md"

# Each excuse has been argued for in docs/methods.md; a new one needs a reason there and here.
EXCUSES = {
    ("adalora", "RELOADS_EXACTLY"),
    ("full", "FREEZES_BACKBONE"),
    ("full", "TURNS_OFF"),
    ("pifi", "FREEZES_BACKBONE"),
    ("pifi", "MERGEABLE"),
    ("pifi", "STARTS_UNCHANGED"),
    ("pifi", "TURNS_OFF"),
    ("prefix", "MERGEABLE"),
    ("prefix", "STARTS_UNCHANGED"),
    ("prompt", "MERGEABLE"),
    ("prompt", "STARTS_UNCHANGED"),
}


def excuses() -> set[tuple[str, str]]:
    return {
        (name, promise)
        for name in registry.names("methods")
        for promise in PROMISES
        if not getattr(registry.find("methods", name), promise)
    }


def test_no_method_is_excused_from_more_than_was_agreed() -> None:
    assert excuses() == EXCUSES


def test_the_documented_excuses_are_the_constants() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([A-Z_]+)` \|", DOCS.read_text(encoding="utf-8"), re.M)
    assert sorted(rows) == sorted(excuses())


@pytest.mark.parametrize("name", registry.names("methods"))
def test_every_method_has_its_paragraph_in_the_docs(name: str) -> None:
    assert f"## {name}\n" in DOCS.read_text(encoding="utf-8")
