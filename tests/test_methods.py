"""Every method keeps the promises of `graftlab.testing`; of ours the excuses are agreed on."""

from pathlib import Path

import pytest

from graftlab import registry
from graftlab.testing.methods import *  # noqa: F403

# Each method on one kind of backbone that it fits, LoRA on two; the other kinds are slow.
pytestmark = pytest.mark.quick(
    "*-decoder", "lora-encoder", "pifi-encoder", *registry.names("methods")
)

DOCS = Path(__file__).parents[1] / "docs" / "methods.md"

# What the methods with a paragraph of their own in docs/methods.md may leave out: no more than this.
AGREED = {
    "adalora": {"reloads_exactly"},
    "bitfit": set(),
    "dora": set(),
    "full": {"freezes_backbone", "turns_off", "quantized"},
    "head": set(),
    "jelly": set(),
    "lora": set(),
    "pifi": {"freezes_backbone", "mergeable", "starts_unchanged", "turns_off"},
    "pissa": {"quantized"},
    "prefix": {"mergeable", "starts_unchanged"},
    "prompt": {"mergeable", "starts_unchanged"},
}


@pytest.mark.parametrize("name", AGREED)
def test_no_method_is_excused_from_more_than_was_agreed(name: str) -> None:
    assert registry.find("methods", name).PROMISES.excuses().keys() == AGREED[name]


@pytest.mark.parametrize("name", AGREED)
def test_every_method_has_its_paragraph_in_the_docs(name: str) -> None:
    assert f"## {name}\n" in DOCS.read_text(encoding="utf-8")
