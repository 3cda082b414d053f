"""Parts in a package from outside: one file each, as docs/add-a-part.md shows them, and an entry point."""

import json
import re
from pathlib import Path

import pytest
from outside_packages import install, run

OUTSIDE = Path(__file__).with_name("outside") / "part"
DOCS = Path(__file__).parents[1] / "docs" / "add-a-part.md"
FENCE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
PARTS = {"analyses": "largest_entry", "metrics": "long_accuracy", "plots": "score_bars"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return install(OUTSIDE, tmp_path_factory.mktemp("site"))


def test_the_files_of_the_page_are_the_files_that_are_tested():
    found = FENCE.findall(DOCS.read_text(encoding="utf-8"))
    for name in PARTS.values():
        assert (OUTSIDE / f"{name}.py").read_text(encoding="utf-8") in found


@pytest.mark.slow
def test_they_are_listed_and_a_run_file_may_ask_for_the_metric(installed):
    for kind, name in PARTS.items():
        assert name in json.loads(run(installed, "graftlab", "list", kind, "--json"))[kind]
    (installed / "rows.csv").write_text("text,label\n" + "a b c,x\nb,y\n" * 20)
    (installed / "run.yaml").write_text(
        "backbone: {kind: tiny}\nmethod: {name: head}\ntraining: {max_steps: 2, batch_size: 8}\n"
        "task: {kind: classification, files: {train: rows.csv},\n"
        "  metrics: [{name: long_accuracy, words: 3}]}\n"
    )
    run(installed, "graftlab", "check", "run.yaml")
    out = json.loads(run(installed, "graftlab", "run", "run.yaml", "--out", "run", "--json"))
    (name, _) = out["metrics"]["validation"]
    assert name == "long_accuracy(words=3)"
    assert out["metrics"]["validation"][name]["value"] is not None


@pytest.mark.slow
def test_the_analysis_is_asked_about_every_run(installed):
    (installed / "digits.yaml").write_text(
        "backbone: {kind: tiny, modality: images}\ntask: {name: digits}\nmethod: {name: lora}\n"
        "training: {max_steps: 2}\n"
    )
    run(installed, "graftlab", "run", "digits.yaml", "--out", "digits")
    found = json.loads(run(installed, "graftlab", "analyse", "digits", "--json"))["analyses"]
    assert {"largest_entry", "spectra"} <= set(found)
    pairs = [*zip(found["largest_entry"]["rows"], found["spectra"]["rows"], strict=True)]
    assert all(one["weight"] == other["layer"] for one, other in pairs)
    norms = {one["largest"]: other["change_spectral_norm"] for one, other in pairs}
    assert sum(norm is None for norm in norms.values()) == 1, (
        "the new head has nothing to be compared with"
    )
    assert all(0 < entry <= (norm or entry) for entry, norm in norms.items())
    assert (installed / "digits" / "analysis" / "largest_entry.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARTS)
def test_they_keep_the_promises_of_their_kind(installed, kind):
    said = run(
        installed, "pytest", "-q", "-p", "no:cacheprovider",
        "--pyargs", f"graftlab.testing.{kind}", "-k", PARTS[kind],
    )  # fmt: skip
    assert int(re.search(r"(\d+) passed", said)[1]) >= 4
    assert "failed" not in said


@pytest.mark.slow
def test_the_plot_is_on_the_page_of_every_study_and_beside_it(installed):
    (installed / "study.yaml").write_text(
        "base:\n  backbone: {kind: tiny, modality: images}\n  task: {name: digits}\n"
        "  training: {max_steps: 2}\nmethods: [head, bitfit]\n"
    )
    run(installed, "graftlab", "compare", "study.yaml", "--out", "study")
    page = (installed / "study" / "comparison.html").read_text(encoding="utf-8")
    assert "Test scores. Test scores as bars" in page
    for name in ("learning_curves", "score_bars"):
        assert (installed / "study" / f"{name}.png").stat().st_size > 1000
