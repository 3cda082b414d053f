"""Put the tables of bench/results/*.json into docs/benchmarks.md, so that no number is copied by hand.

python bench/table.py
"""

import json
from pathlib import Path

from harness import RESULTS, markdown

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: begin (made by bench/table.py) -->", "<!-- results: end -->"


def block() -> str:
    """Return the tables of all results, in the order of their names."""
    results = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))
    ]
    return "\n".join(markdown(result) for result in results) or "Nothing has been measured yet.\n"


def fill(page: str) -> str:
    """Return the page with its marked block replaced by the tables of today's results."""
    before, _, rest = page.partition(BEGIN)
    _, marked, after = rest.partition(END)
    assert marked, f"{PAGE} has lost its marks {BEGIN!r} and {END!r}"
    return f"{before}{BEGIN}\n\n{block()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
