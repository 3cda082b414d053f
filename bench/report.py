"""`graftlab report` of 200 and of 2,000 runs: processor seconds, peak memory, the size of the page; how fast
Chromium opens and sorts it; and how fast `graftlab serve` shows 2,000 runs."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import chromium
import made_studies

GOALS = {200: (10.0, 1024), 2_000: (60.0, 1024)}
"""Runs, with seconds and MiB that are not to be exceeded."""
SEEDS = {200: 10, 2_000: 50}
PAGE_BYTES, OPEN_S, SORT_S, FIRST_PAGE_S = 5_000_000, 1.0, 0.1, 2.0
MEASURED = (
    "import resource, sys; sys.argv[0] = 'graftlab'\n"
    "from graftlab.cli import main\n"
    "try:\n    main()\n"
    "finally:\n    used = resource.getrusage(resource.RUSAGE_SELF)\n"
    "    print(used.ru_utime + used.ru_stime, used.ru_maxrss // 1024)"
)
SORT = (
    "const head = document.querySelector('th[data-sort]'), began = performance.now();"
    "head.click(); document.body.offsetHeight; return (performance.now() - began) / 1000"
)
OPENED = "const e = performance.getEntriesByType('navigation')[0]; return e.loadEventEnd / 1000"


def report(folder: Path, runs: int) -> list[tuple[str, float, float]]:
    """Return seconds, MiB and bytes of the report of so many runs, each beside its goal."""
    methods = [{"name": "lora", "rank": rank} for rank in range(1, runs // SEEDS[runs] + 1)]
    made_studies.compared(folder, methods, SEEDS[runs])
    command = [sys.executable, "-c", MEASURED, "report", str(folder / "made")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    most = GOALS[runs]
    size = (folder / "made" / "report.html").stat().st_size
    return [
        (f"report of {runs} runs, s", float(said[-2]), most[0]),
        (f"report of {runs} runs, MiB", float(said[-1]), most[1]),
        (f"page of {runs} runs, bytes", size, PAGE_BYTES),
    ]


def opened(path: Path) -> list[tuple[str, float, float]]:
    """Return how long a page takes to open and to sort in Chromium; nothing where there is none."""
    if not chromium.BROWSER or not chromium.DRIVER:
        return []
    with chromium.driver() as driver:
        page = chromium.Page(driver)
        page.open(path.as_uri())
        found = [("opens, s", page.ask(OPENED), OPEN_S), ("sorts, s", page.ask(SORT), SORT_S)]
        page.close()
    return found


def served(folder: Path) -> list[tuple[str, float, float]]:
    """Return the processor seconds that the server needs for the first page of a folder of runs."""
    command = [sys.executable, "-m", "graftlab", "serve", str(folder), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["url"]
        jar = urllib.request.HTTPCookieProcessor(CookieJar())
        began = _processor_seconds(process.pid)
        with urllib.request.build_opener(jar).open(address) as answer:
            assert b"tbody" in answer.read()
        return [("first page of serve, s", _processor_seconds(process.pid) - began, FIRST_PAGE_S)]
    finally:
        process.terminate()
        process.wait()


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf(
        "SC_CLK_TCK"
    )  # utime and stime of proc(5)


def main() -> None:
    missed = 0
    for runs in GOALS:
        with tempfile.TemporaryDirectory() as name, contextlib.suppress(KeyboardInterrupt):
            folder = Path(name)
            rows = report(folder, runs) + opened(folder / "made" / "report.html")
            rows += served(folder / "made" / "runs") if runs == max(GOALS) else []
            for what, value, goal in rows:
                print(f"{what}: {value:.4g} (goal {goal:g})", flush=True)
                missed += value > goal
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
