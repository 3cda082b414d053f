"""Texts of four public sets with what answers them, as one file that `graftlab synthesize` reads.

    python bench/elm_texts.py --data ../shared/data --out texts.jsonl

AG News has a category, DialogSum and XSum have summaries, SQuAD 2.0 has questions, of which those without an
answer in the text are left out. All splits that are there are put together: `synthesize` parts them anew,
by text. Nothing of it is kept in this repository.
"""

import argparse
import itertools
import json
from pathlib import Path

from graftlab.data import readers
from graftlab.rundir import files

SETS = {
    "ag_news": ("text", "label", "category"),
    "dialogsum": ("dialogue", "summary", "summary"),
    "xsum": ("document", "summary", "summary"),
    "squad_v2": ("context", "question", "questions"),
}
"""Of each set the column of its texts, that of its answers, and the column that they get here."""
SPLITS = ("train", "validation", "test")


def lines(data: Path, most: int) -> list[str]:
    """Return a row of each answer: `text`, `set` and the answer under the name of its task type."""
    found = []
    for name, (text, answer, kind) in SETS.items():
        paths = [path for split in SPLITS if (path := data / name / f"{split}.jsonl.gz").is_file()]
        assert paths, f"there is no {data / name}"
        for path in paths:
            for _, row in itertools.islice(readers.read(path), most):
                assert not isinstance(row, str), row
                if name == "squad_v2" and not row["answers"]["text"]:
                    continue
                found.append(json.dumps({"text": row[text], "set": name, kind: row[answer]}) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder with a folder a set.")
    parser.add_argument("--most", type=int, default=2400, help="Rows of each file.")
    parser.add_argument("--out", type=Path, required=True, help="File to write.")
    given = parser.parse_args()
    found = lines(given.data, given.most)
    files.write_text(given.out, "".join(found))
    print(f"{given.out}: {len(found):,} rows")


if __name__ == "__main__":
    main()
