"""Reports in Chromium: sorting, tips, tabs, light and dark, on a desk and on a phone."""

import chromium
import made_studies
import pytest

from graftlab import report

pytestmark = [pytest.mark.slow, chromium.needed]
BACKGROUND = "return getComputedStyle(document.body).backgroundColor"
FIRST = "return [...document.querySelectorAll('#table-ranking0 tbody tr')].map(r => r.cells[{}].innerText)"

ALONE = "svg.chart circle.dot:not(.small):not(.ringed)"
"""A point of a chart of costs, over which no other lies."""


@pytest.fixture(scope="module")
def driver():
    with chromium.driver() as address:
        yield address


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page of a study of two backbones and three methods, each at the best of two rates."""
    folder = tmp_path_factory.mktemp("made")
    made_studies.compared(
        folder, ["lora", "head", "bitfit"], 3, {"lora": 0.9, "head": 0.3, "bitfit": 0.7},
        backbones=[{"kind": "tiny", "modality": "images", **more} for more in ({}, {"layers": 1})],
        vary={"training.learning_rate": [1e-3, 1e-2]}, choose={"by": "validation"},
    )  # fmt: skip
    path = folder / "page.html"
    path.write_text(report.html(folder / "made", {}), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(request, driver, address):
    found = chromium.Page(driver, request.param)
    found.open(address)
    yield found
    found.close()


def test_it_fits_complains_of_nothing_and_asks_nobody(page, address):
    assert page.too_wide() <= 0
    ranking = "const t = document.querySelector('#table-ranking0'), c = t.querySelector('caption');"
    room = "const room = t.parentElement.clientWidth;"
    assert page.ask(f"{ranking}{room} return t.scrollWidth - room") <= 0
    assert page.ask(f"{ranking}{room} return c.offsetWidth - room") <= 0
    assert page.complaints() == []
    assert {url for url in page.requests() if not url.startswith("data:")} == {address}


def test_tabs_show_one_part_at_a_time(page):
    shown = (
        "return [...document.querySelectorAll('section .tab')].filter(t => t.offsetParent).length"
    )
    tabs = page.ask("return document.querySelectorAll('[role=tablist]').length")
    assert page.ask(shown) == tabs > 0
    page.ask("document.querySelector('[role=tab][aria-selected=false]').click()")
    assert page.ask(shown) == tabs
    assert (
        page.ask("return document.querySelectorAll('[role=tab][aria-selected=true]').length")
        == tabs
    )
    assert page.too_wide() <= 0


def test_light_and_dark_change_places(page):
    before = page.ask(BACKGROUND)
    page.click("button.theme")
    assert page.ask(BACKGROUND) != before
    page.click("button.theme")
    assert page.ask(BACKGROUND) == before


def test_a_column_is_sorted_by_its_numbers_both_ways(page):
    if page.ask("return document.documentElement.clientWidth") < 600:
        pytest.skip("on a phone rows are cards, and have no heads to press")
    column = page.ask(
        "return [...document.querySelectorAll('#table-ranking0 th')]"
        ".findIndex(head => head.innerText.startsWith('trained'))"
    )
    head = f"#table-ranking0 th:nth-child({column + 1})"
    page.click(head)
    rising = [int(text.replace(",", "")) for text in page.ask(FIRST.format(column))]
    page.click(head)
    falling = [int(text.replace(",", "")) for text in page.ask(FIRST.format(column))]
    assert rising == sorted(rising)
    assert falling == sorted(rising, reverse=True)


def test_what_is_pointed_at_says_its_numbers(page):
    on_phone = page.ask("return document.documentElement.clientWidth") < 600
    (page.click if on_phone else page.point_at)(ALONE)
    said = page.ask("return document.querySelector(arguments[0]).dataset.tip", ALONE)
    assert page.until(lambda page: page.text(".tip")) == said
    assert page.too_wide() <= 0


def test_without_its_script_all_of_it_can_be_read(driver, tmp_path, address):
    import re
    import urllib.request

    with urllib.request.urlopen(address) as file:
        text = re.sub(r"<script>.*</script>", "", file.read().decode(), flags=re.S)
    (tmp_path / "plain.html").write_text(text, encoding="utf-8")
    page = chromium.Page(driver, 390)
    page.open((tmp_path / "plain.html").as_uri())
    assert page.too_wide() <= 0
    assert page.ask("return [...document.querySelectorAll('.tab')].every(t => t.offsetParent)")
    page.close()
