"""What the pages say is true: links lead somewhere, tables are current, commands and files are understood."""

import contextlib
import re
import runpy
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from graftlab import config, errors, registry, runfile, search, study
from graftlab.runs.forgetting import Config as Forgetting
from graftlab.search.sections import Pruner, Sampler, Winner
from graftlab.study.section import Budget, Choose

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], key=lambda path: path.relative_to(ROOT).parts
)
READMES = [ROOT / "README.md", ROOT / "README.ko.md"]
OURS = READMES + [
    ROOT / "docs" / f"{name}.md"
    for name in (
        "index",
        "run-files",
        "tasks",
        "backbones",
        "runs",
        "coming-from",
        "studies",
        "search",
        "cluster",
        "mixtures",
        "selection",
        "analysis",
        "methods/elm",
    )
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SECTIONS = ("backbone", "task", "method", "training", "tracking", "paths")


@pytest.fixture(scope="module")
def generate():
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))


def named(path):
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks of a page that are in one of the languages."""
    for language, text in FENCE.findall(path.read_text(encoding="utf-8")):
        if language in languages:
            yield text


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{named(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(path), f"{named(page)} links to {target}: no such heading"


def test_what_generated_tables_say_is_so(generate, monkeypatch):
    """A part that was added may be missing until `make docs` makes the tables again, which it does first."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for page in generate["PAGES"]:
        text = (ROOT / page).read_text(encoding="utf-8")
        lines, now = set(text.splitlines()), set(generate["current"](text).splitlines())
        assert lines <= now, f"{page}: run `make docs`"
        if now - lines:
            warnings.warn(f"{page} lacks what was added: run `make docs`", stacklevel=1)


def test_every_table_is_on_a_page(generate):
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in generate["PAGES"])
    assert {found[1] for found in generate["BLOCK"].findall(text)} == set(generate["TABLES"])


def frozen_commands() -> dict[str, tuple[int, set[str]]]:
    """Return for each command how many words it takes, and its options."""
    lines = (ROOT / "tests" / "commands.txt").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        name, *rest = re.sub(r"\]\.\.\.", "]", line).split()
        words = re.sub(r"\[-[^\]]*\]", "", " ".join(rest)).split()
        found[name] = len(words), set(re.findall(r"--[\w-]+", line))
    return found


def mentioned(page: Path) -> Iterator[str]:
    """Yield every command line of ours on a page, in blocks and in the text."""
    for text in blocks(page, "bash", "console"):
        for line in text.splitlines():
            if found := re.match(r"(?:\$ )?(graftlab .*)", line):
                yield found[1]
    yield from re.findall(r"`(graftlab [^`]+)`", prose(page))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_command_lines_use_known_commands_and_options(page):
    known, with_value = frozen_commands(), _options_with_a_value()
    for line in mentioned(page):
        words = shlex.split(re.split(r" [|>] ", line)[0], comments=True)[1:]
        if words[0].startswith("-") or words[0] in ("...", "COMMAND"):
            continue
        assert words[0] in known, line
        count, options = known[words[0]]
        given = [word for word in words[1:] if word.startswith("--")]
        assert set(given) <= options | {"--help"}, line
        values = sum(word in with_value for word in given)
        plain = len(words) - 1 - len(given) - values
        assert plain <= count, f"{line}: {plain} words, the command takes {count}"


def _options_with_a_value() -> set[str]:
    text = (ROOT / "tests" / "commands.txt").read_text(encoding="utf-8")
    return set(re.findall(r"\[(--[\w-]+) ", text))


@pytest.mark.parametrize("page", READMES, ids=named)
def test_the_commands_of_the_readme_exist_each_with_an_example(page):
    rows = re.findall(r"^\| `(\w+)[^|]*\| [^|]+ \| `graftlab (\w+)[^|]*` \|$", prose(page), re.M)
    assert rows
    assert rows == [(name, name) for name, _ in rows]
    assert {name for name, _ in rows} <= set(frozen_commands())


def test_both_readmes_show_the_same():
    """Code (but for its comments), commands, headings and links; the words are each language's own."""

    def shown(page):
        text = page.read_text(encoding="utf-8")
        code = [re.sub(r"# .*", "", block) for _, block in FENCE.findall(text)]
        links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
        return {
            "code": code,
            "commands": sorted(re.findall(r"`((?:graftlab|accelerate|make) [^`]+)`", prose(page))),
            "headings": re.findall(r"^#+(?= )", prose(page), re.M),
            "links": sorted(link for link in links if not link.startswith("README")),
        }

    english, korean = map(shown, READMES)
    assert english == korean


KEYS_OF = {
    "studies": (study.Study, Choose, Budget, Forgetting),
    "search": (search.Search, Sampler, Pruner, Winner),
}


@pytest.mark.parametrize("name", KEYS_OF)
def test_every_key_of_such_a_file_stands_on_its_page(name):
    page = ROOT / "docs" / f"{name}.md"
    spans = re.findall(r"`([^`]+)`", prose(page))
    told = set(re.findall(r"[a-z_]+", " ".join([*spans, *blocks(page, "yaml")])))
    assert {key for section in KEYS_OF[name] for key in section.model_fields} <= told


def test_the_page_of_tasks_begins_with_every_kind():
    """Every kind of those whose keys docs/run-files.md lists: one that was added waits for `make docs`."""
    tables = (ROOT / "docs" / "run-files.md").read_text(encoding="utf-8")
    kinds = set(re.findall(r"^### (.*)$", tables, re.M)) & set(registry.names("tasks"))
    assert "classification" in kinds
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert {kind for kind in kinds if f"`{kind}`" not in page} == set()


@pytest.mark.parametrize("page", OURS, ids=named)
def test_run_files_can_be_resolved(page, tmp_path, monkeypatch):
    """A YAML block whose first line is `# NAME.yaml` is a run file; with a base a study file, and with a
    space too a search file."""
    monkeypatch.chdir(tmp_path)
    for text in blocks(page, "yaml"):
        if not (name := re.match(r"# ([\w-]+\.yaml)\n", text)):
            continue
        file = tmp_path / name[1]
        file.write_text(text, encoding="utf-8")
        document = config.read(file)
        with contextlib.suppress(errors.DataError):  # all is right but the files, the reader's own
            if "space" in document.values:
                assert search.read(file).search.space
            elif "base" in document.values:
                assert study.read(file).runs
            else:
                runfile.resolve(document)


@pytest.mark.parametrize("page", OURS, ids=named)
def test_keys_that_are_named_exist(generate, page):
    known = {f"{section}.{key}" for section in SECTIONS for key in ("name", "kind")}
    for section in SECTIONS:
        keys = re.findall(r"^\| `([\w.]+)` \|", generate["TABLES"][section](), re.M)
        known |= {f"{section}.{key}" for key in keys}
    known |= {key.rpartition(".")[0] for key in known}
    for span in re.findall(r"`([^`]+)`", prose(page)):
        for key in re.findall(rf"^(?:{'|'.join(SECTIONS)})\.[a-z_.]+", span):
            assert key in known, f"{named(page)} names {key}, which is no key"


def test_exit_codes_are_those_of_the_errors():
    text = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    listed = {
        int(code)
        for code in re.findall(r"\d+", " ".join(re.findall(r"^\| ([\d, ]+) \|", text, re.M)))
    }
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type)]
    codes = {cls.exit_code for cls in classes if isinstance(getattr(cls, "exit_code", None), int)}
    assert listed == codes | {0, 1, 130, 143}
