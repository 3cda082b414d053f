"""A method from outside: one module and an entry point, as docs/add-a-method.md shows it."""

import json
import re
from pathlib import Path

import pytest
from outside_packages import install, run

OUTSIDE = Path(__file__).with_name("outside")
DOCS = Path(__file__).parents[1] / "docs" / "add-a-method.md"
FILES = {"python": "graftlab_ia3.py", "toml": "pyproject.toml", "yaml": "run.yaml"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return install(OUTSIDE, tmp_path_factory.mktemp("site"))


def test_the_files_of_the_page_are_the_files_that_are_tested():
    text = DOCS.read_text(encoding="utf-8")
    for language, name in FILES.items():
        [block] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
        assert block == (OUTSIDE / name).read_text(encoding="utf-8")


def test_the_commands_of_the_page_are_the_commands_that_are_tested():
    blocks = re.findall(r"^```bash\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.M | re.S)
    assert "".join(blocks).splitlines() == [
        "graftlab list methods",
        "graftlab check run.yaml",
        "graftlab run run.yaml",
        "pytest --pyargs graftlab.testing.methods -k ia3",
    ]


@pytest.mark.slow  # processes of their own
def test_it_is_listed_and_its_run_file_is_checked(installed):
    assert "ia3" in json.loads(run(installed, "graftlab", "list", "methods", "--json"))["methods"]
    said = json.loads(run(installed, "graftlab", "check", OUTSIDE / "run.yaml", "--json"))
    assert said


@pytest.mark.slow
def test_it_runs_and_is_loaded_again(installed):
    result = run(installed, "graftlab", "run", OUTSIDE / "run.yaml", "--out", "digits", "--json")
    assert json.loads(result)["method"] == "ia3"
    again = run(installed, "graftlab", "evaluate", "digits", "--json")
    assert json.loads(again)["difference"] == {"rows": 0, "largest": 0.0}


@pytest.mark.slow
def test_it_keeps_the_promises_of_every_method(installed):
    said = run(
        installed, "pytest", "-q", "-p", "no:cacheprovider",
        "--pyargs", "graftlab.testing.methods", "-k", "ia3",
    )  # fmt: skip
    passed = int(re.search(r"(\d+) passed", said)[1])
    assert passed >= 4 * 12
    assert "failed" not in said
