"""The benchmarks' own arithmetic, and that the page of results says what was measured.

Slow: the benchmark for GPUs is carried out as a whole, on a tiny model.
"""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _bench_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))


def test_the_page_shows_the_results_as_they_are():
    import table

    page = table.PAGE.read_text(encoding="utf-8")
    assert table.fill(page) == page, "docs/benchmarks.md is out of date: run python bench/table.py"


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "results").glob("*.json")), ids=str)
def test_a_result_has_all_contestants_in_all_rounds(path):
    turns = json.loads(path.read_text(encoding="utf-8"))["turns"]
    assert len({len(rows) for rows in turns.values()}) == 1


def test_a_ratio_is_taken_within_a_round():
    from harness import Goal

    # Round 2 ran on a machine half as fast: both are slower, the ratio is not.
    turns = {"us": [{"speed": 12.0}, {"speed": 6.0}], "peer": [{"speed": 10.0}, {"speed": 5.0}]}
    assert Goal("speed", "us", "peer").values(turns) == pytest.approx([1.2, 1.2])
    assert Goal("speed", "us", "peer", "difference").values(turns) == pytest.approx([2.0, 1.0])


def test_a_goal_that_is_missed_is_said_to_be_missed():
    from harness import Goal, markdown

    result = {
        "name": "n",
        "claim": "c",
        "settings": {},
        "machine": {"processor": "p", "packages": {}},
        "turns": {"us": [{"speed": 8.0}], "peer": [{"speed": 10.0}]},
        "goals": [Goal("speed", "us", "peer", at_least=bound)._asdict() for bound in (0.8, 0.81)],
    }
    rows = [line for line in markdown(result).splitlines() if line.startswith("| speed: us / peer")]
    assert [row.endswith("yes |") for row in rows] == [True, False]


def test_peak_memory_is_the_child_s_own():
    # In a process of its own, as a benchmark has it: a child's peak starts from its parent's size, and
    # this one may hold torch.
    code = """if True:
        import sys
        from harness import run_child
        for size in (100, 300):
            child = [sys.executable, "-c", f"bytearray({size} << 20)"]
            print(run_child(child, 1)["peak memory (MiB)"])
    """
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "bench", capture_output=True, text=True, check=True
    ).stdout
    small, large = map(float, output.split())
    assert large - small == pytest.approx(200, abs=15)  # what the allocator rounds


def test_a_child_that_fails_ends_the_benchmark_with_its_own_words():
    from harness import run_child

    with pytest.raises(SystemExit, match="no such flag"):
        run_child([sys.executable, "-c", "raise SystemExit('no such flag')"], 1)


def test_a_child_that_is_late_is_killed_with_all_that_it_has_started(tmp_path):
    import fcntl

    from harness import run_child

    lock = tmp_path / "lock"
    hold = (
        f"import fcntl, time; f = open({str(lock)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print(flush=True); time.sleep(600)"
    )
    start = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {hold!r}], stdout=subprocess.PIPE); "
        "child.stdout.readline(); time.sleep(600)"
    )
    with pytest.raises(SystemExit, match="after 3"):
        run_child([sys.executable, "-c", start], 1, limit=3)
    with lock.open("w") as stream:
        for _ in range(100):  # the kernel takes a moment to let go of what the dead have held
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(0.05)
    pytest.fail("what the child has started lives on")


def test_a_part_for_which_no_time_is_left_is_recorded_and_not_begun():
    import on_gpu
    from sft_settings import Settings

    found = on_gpu.measure(on_gpu.PARTS, Settings("", ""), time.monotonic(), threads=1)
    assert found == ({}, dict.fromkeys(on_gpu.PARTS, "no time was left"))


def test_a_cause_tells_what_was_said_last_and_no_folder_of_the_machine():
    import on_gpu

    noise = "noise\n" * 20
    said = f"python x\nended with 3:\n{noise}graftlab: /home/me/a/run.yaml:3: ~/b.csv is odd"
    assert on_gpu.cause(said).splitlines()[0] == "ended with 3"
    assert on_gpu.cause(said).splitlines()[-1] == "graftlab: run.yaml:3: b.csv is odd"
    assert len(on_gpu.cause(said).splitlines()) == 9


@pytest.mark.slow
def test_what_is_prepared_for_a_gpu_runs_on_a_cpu_and_goes_on_after_a_part_that_fails(tmp_path):
    import on_gpu
    import torch

    if torch.cuda.is_available():
        pytest.skip("flash attention is to fail, which it does without a GPU")
    labels = [on_gpu.OURS_FLASH, on_gpu.BARE, on_gpu.OURS, on_gpu.PLANS[0], on_gpu.RESUMED]
    out = tmp_path / "on_gpu.json"
    command = [sys.executable, str(ROOT / "bench" / "on_gpu.py"), "--tiny", "--out", str(out)]
    subprocess.run([*command, "--only", *labels], check=True, capture_output=True)
    result = json.loads(out.read_text(encoding="utf-8"))
    assert list(result["failed"]) == [on_gpu.OURS_FLASH]
    assert set(result["turns"]) == set(labels) - {on_gpu.OURS_FLASH}
    assert result["turns"][on_gpu.RESUMED][0]["same bytes"] == 1
    assert result["turns"][on_gpu.PLANS[0]][0]["error (%)"] <= 10
    ours, bare = (result["turns"][label][0] for label in (on_gpu.OURS, on_gpu.BARE))
    # the same batches from the same start; the adapter's random half is drawn otherwise
    assert ours["held-out loss"] == pytest.approx(bare["held-out loss"], rel=0.02)
    assert {(goal["figure"], goal["ours"]) for goal in result["goals"]} == {
        ("tokens/s", on_gpu.OURS),
        ("error (%)", on_gpu.PLANS[0]),
        ("same bytes", on_gpu.RESUMED),
    }
    assert result["machine"]["gpu"] == "none"
    assert str(tmp_path) not in out.read_text(encoding="utf-8")


def test_contestants_take_turns_and_the_order_moves_on(tmp_path):
    from harness import in_turns

    log = tmp_path / "log"
    code = "import sys; open(sys.argv[1], 'a').write(sys.argv[2]); print('{\"x\": 1}')"
    contestants = {
        name: lambda turn, name=name: [sys.executable, "-c", code, str(log), f"{name}{turn} "]
        for name in "ab"
    }
    turns = in_turns(contestants, rounds=2, threads=1, warm_up=False)
    assert log.read_text().split() == ["a0", "b0", "b1", "a1"]
    assert [turn["x"] for turn in turns["a"]] == [1, 1]


def test_a_benchmark_that_was_stopped_goes_on_after_the_turns_that_are_done(tmp_path):
    from harness import Journal, in_turns

    log, path = tmp_path / "log", tmp_path / "mine.partial"
    code = "import sys; open(sys.argv[1], 'a').write(sys.argv[2]); print('{\"x\": 1}')"
    contestants = {
        name: lambda turn, name=name: [sys.executable, "-c", code, str(log), f"{name}{turn} "]
        for name in "ab"
    }
    for rounds, rows in ((1, 3), (2, 3), (2, 4)):
        journal = Journal(path, {"rows": rows, "threads": 1})
        turns = in_turns(contestants, rounds, 1, warm_up=False, journal=journal)
        assert [len(turns[name]) for name in "ab"] == [rounds, rounds]
        with path.open("a") as file:
            file.write('["a", 9, {"x"')  # a turn that was being written down
    # the second goes on where the first ended; the third has other settings, and begins anew
    assert log.read_text().split() == ["a0", "b0", "b1", "a1", "a0", "b0", "b1", "a1"]


def test_each_number_of_threads_has_a_result_of_its_own(tmp_path, monkeypatch):
    import harness

    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    code = "import json, os; print(json.dumps({'x': int(os.environ['OMP_NUM_THREADS']), 'seconds': 7}))"
    contestants = {"us": lambda _: [sys.executable, "-c", code]}
    harness.race("n", "c", contestants, [], {"rows": 3}, 2, threads=[1, 2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.json", "n_2_threads.json"]
    for name, threads in (("n", 1), ("n_2_threads", 2)):
        result = json.loads((tmp_path / f"{name}.json").read_text())
        assert result["settings"] == {"rows": 3, "threads": threads}
        assert [turn["x"] for turn in result["turns"]["us"]] == [threads, threads]
        assert [turn["seconds"] for turn in result["turns"]["us"]] == [
            7,
            7,
        ]  # as it has measured itself
        assert all(turn["processors (s)"] > 0 for turn in result["turns"]["us"])


def test_the_description_of_the_machine_names_neither_host_nor_folder():
    import platform

    from harness import machine

    text = json.dumps(machine(threads=2))
    assert platform.node() not in text.split('"')
    assert str(Path.home()) not in text


def test_a_table_of_differences_has_students_intervals_and_p_values_corrected_for_all_rows():
    import paired

    draws = np.random.default_rng(0)
    base, *others = (np.repeat(draws.random((4, 1)), 50, axis=1) for _ in range(4))
    rows = [
        {
            "method": f"m{n}",
            "learning_rate": "1",
            "accuracy": 1.0,
            "deviation": 0.1,
            "switch_steps": [],
        }
        | paired.difference(own, base)
        for n, own in enumerate(others)
    ]
    lines = paired.table({"seeds": 4, "examples": 50, "baseline": "b", "rows": rows}).splitlines()[
        4:
    ]
    found = [stats.ttest_rel(100 * own[:, 0], 100 * base[:, 0]) for own in others]
    ends = [one.confidence_interval() for one in found]
    assert [
        f"({low:+.2f} to {high:+.2f})" in line
        for line, (low, high) in zip(lines, ends, strict=True)
    ]
    # Holm's largest and smallest: the smallest p-value times three, the largest once at least
    smallest = int(np.argmin([one.pvalue for one in found]))
    assert f"| {min(1, 3 * found[smallest].pvalue):.3f} |" in lines[smallest]


STUDIES = sorted((ROOT / "bench" / "results" / "studies").glob("*.json"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_s_table_stands_in_a_page_as_it_was_measured(path):
    import paired

    record = json.loads(path.read_text(encoding="utf-8"))
    texts = [page.read_text(encoding="utf-8") for page in paired.PAGES.glob("*.md")]
    shown = [text for text in texts if paired.mark(path.stem) in text]
    assert shown, f"no page has the mark {paired.mark(path.stem)}"
    for text in shown:
        assert paired.fill(text, path.stem, record) == text


def test_the_tables_of_a_study_s_page_are_those_that_were_kept():
    import study_page

    for path in study_page.PAGES.glob("*.md"):
        page = path.read_text(encoding="utf-8")
        assert study_page.fill(page, path.stem) == page, "run python bench/study_page.py"


def test_the_rankings_of_the_page_are_those_of_the_recorded_runs():
    import ranking

    page = ranking.PAGE.read_text(encoding="utf-8")
    assert ranking.fill(page, "trec") == page, "run python bench/ranking.py"
