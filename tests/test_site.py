"""The site of these pages: built without a warning, complete, and readable without a network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.slow  # `make docs` does it too


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site as `make docs` does; a broken link or a page in no group fails here."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    command += ["--conf-dir", "docs", "--doctree-dir", str(out / "doctrees")]
    done = subprocess.run(
        [*command, ".", str(out / "html")], cwd=ROOT, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    return out / "html"


def test_the_site_begins_with_a_csv_and_leads_to_every_page(site):
    target = re.search(r"url=([^\"]+)", (site / "index.html").read_text(encoding="utf-8"))
    assert target is not None
    first = site / target[1]
    text = first.read_text(encoding="utf-8")
    assert "<h1>Your CSV in ten lines" in text
    led_to = {
        (first.parent / link).resolve()
        for link in re.findall(r'<li class="toctree-l1[^>]*><a [^>]*href="([^"#]+)', text)
    }
    pages = [*ROOT.glob("docs/**/*.md"), *(ROOT / f"{n}.md" for n in ("README", "README.ko"))]
    pages += [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
    wanted = {(site / page.relative_to(ROOT)).with_suffix(".html") for page in pages}
    assert wanted - led_to == {first}


def test_a_browser_asks_no_other_machine_for_anything(site):
    outside = re.compile(
        r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//"""
        r"""|<link(?![^>]*rel=["']?(?:canonical|license))[^>]*href=["']?(?:https?:)?//"""
        r"""|@import[^;]*//|url\(["']?(?:https?:)?//"""
    )
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not outside.findall(path.read_text(encoding="utf-8")), path.name
