"""The page of faults names tests that exist, and every case that this version promises."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_exists():
    code = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "graftlab" / "testing").glob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in code)
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert {name for name in named if f"def {name}(" not in text} == set()


def test_every_promised_case_has_a_row():
    cases = {int(number) for number in re.findall(r"^\| (\d+)\. ", PAGE, re.M)}
    promised = {*range(1, 45), *range(46, 66), 68, 69, 72}
    assert promised - cases == set()
