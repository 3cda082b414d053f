"""`graftlab serve` in Chromium: what trains is seen as it goes, stopped and gone on with."""

import json
import subprocess
import sys
from urllib.parse import urlsplit

import chromium
import pytest
from test_overview import result, write

pytestmark = [pytest.mark.slow, chromium.needed]

LONG = (
    "backbone: {kind: tiny, modality: images}\nmethod: {name: lora}\ntask: {name: digits}\n"
    "training: {max_steps: 200000, batch_size: 8, save_every: 20, logging_every: 5}\n"
)


@pytest.fixture(scope="module")
def driver():
    with chromium.driver() as address:
        yield address


@pytest.fixture
def served(tmp_path):
    """A folder of runs that is served, with the address of its page."""
    (tmp_path / "runs").mkdir()
    write(tmp_path / "runs", "<b>bold", done=result("bold", 0.9))
    write(tmp_path / "runs", "other", done=result("other", 0.7), rate=1e-2)
    command = [sys.executable, "-m", "graftlab", "serve", str(tmp_path / "runs"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield tmp_path / "runs", json.loads(process.stdout.readline())["url"]
    process.terminate()
    process.wait(timeout=60)


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(request, driver):
    found = chromium.Page(driver, request.param)
    yield found
    found.close()


def sound(page, address):
    """Check that the page fits its window, and has neither complained nor asked anybody else."""
    assert page.too_wide() <= 0
    assert [said for said in page.complaints() if "favicon" not in said] == []
    assert {urlsplit(url).netloc for url in page.requests()} == {urlsplit(address).netloc}


def test_the_table_filters_and_leads_to_runs_and_pairs(page, served):
    _, address = served
    page.open(address)
    assert "token" not in page.ask("return location.href")
    assert page.ask("return document.querySelectorAll('#rows tbody tr').length") == 2
    sound(page, address)
    page.type("input[name=words]", "bold")
    page.click("#filters button")
    page.until(
        lambda page: page.ask("return document.querySelectorAll('#rows tbody tr').length") == 1
    )
    page.open(address)
    page.ask("document.querySelectorAll('input[type=checkbox]').forEach((box) => box.click())")
    page.click("form[action='/pair'] > p button")
    page.until(lambda page: page.ask("return location.pathname") == "/pair")
    assert "training.learning_rate" in page.text()
    sound(page, address)


def test_a_run_is_watched_stopped_and_gone_on_with_from_its_page(page, served, tmp_path):
    folder, address = served
    (tmp_path / "long.yaml").write_text(LONG)
    command = [sys.executable, "-m", "graftlab", "run", str(tmp_path / "long.yaml")]
    run = subprocess.Popen([*command, "--out", str(folder / "long")], stderr=subprocess.DEVNULL)
    try:
        page.open(address)
        page.until(lambda page: "running" in page.text("#rows"))
        page.open(address.partition("?")[0] + "run?at=long")
        page.until(lambda page: page.ask("return document.querySelector('#curves svg') !== null"))
        before = page.ask("return document.querySelector('#curves').innerHTML")
        page.until(
            lambda page: page.ask("return document.querySelector('#curves').innerHTML") != before
        )
        page.until(lambda _: (folder / "long" / "checkpoints" / "latest").exists())
        page.click("#stop")
        page.until(lambda page: page.text("#status") == "stopped")
        assert run.wait(timeout=300) == 143
        page.click("#resume")
        page.until(lambda page: page.text("#status") == "running")
        page.until(lambda page: "goes on" in page.text("#log") or "resum" in page.text("#log"))
        sound(page, address)
        page.click("#stop")
        page.until(lambda page: page.text("#status") == "stopped")
    finally:
        run.kill()
