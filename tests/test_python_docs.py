"""What docs/python.md shows is what happens."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs" / "python.md"


@pytest.mark.slow
def test_the_examples_run_one_after_the_other_and_say_what_the_page_says(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(
        r"^```python\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.M | re.S
    ):
        exec(compile(block, str(DOCS), "exec"), names)
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"accuracy 0\.\d\d ± 0\.\d\d", said[0])
    assert [re.fullmatch(r"\d \d 0\.\d+", line) is not None for line in said[3:6]] == [True] * 3
    assert "'epochs'" in said[6]
    assert said[6].endswith(" 2")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["from-python"]
