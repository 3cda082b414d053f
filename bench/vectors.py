"""Opening a large file of vectors, and reading batches of them.

python bench/vectors.py [--rounds 5] [--vectors 10000000] [--width 2560] [--dir DIR]

The file is sparse: it takes no room on the disk, and reading it is reading zeros. It is looked through once,
which is measured apart and takes some minutes; a turn then opens it in a fresh process, and reads batches of
32 at places drawn at random, of which the pages have been read before. The peer reads them by
`safetensors.safe_open`. Stopped, it goes on after the last turn: the file stays until all is done.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from harness import RESULTS, Goal, Journal, in_turns, write

BATCH, BATCHES = 32, 200
OURS, PEER = "graftlab", "safetensors"
OPEN, READ = "opened (s)", "batch of 32, warm (ms)"
LOOKED = "looked through (s)"
CLAIM = (
    "A file of vectors that has been looked through before is opened in under a second (its size, where its "
    "numbers are, its hash, and which vectors cannot be used), and random batches of 32 are read in under a "
    "millisecond each once their pages are in memory. Imports are not counted."
)


def make(path: Path, count: int, width: int) -> dict[str, float]:
    """Write a sparse file, look it through, and return the seconds that this took."""
    from graftlab.data.vectors import layout, scan
    from graftlab.data.vectors.store import Vectors

    header = layout.header(count, width, None)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 4 * count * width)
    start = time.perf_counter()
    scan.of(Vectors(path))
    return {LOOKED: time.perf_counter() - start}


def turn(contestant: str, path: str) -> dict[str, float]:
    """Return how long opening takes, and reading a batch."""
    import numpy as np
    from safetensors import safe_open

    from graftlab.data.vectors import scan
    from graftlab.data.vectors.store import Vectors

    np.zeros(1)
    start = time.perf_counter()
    if contestant == OURS:
        vectors = Vectors(Path(path))
        scan.of(vectors)
        count = len(vectors)
    else:
        file = safe_open(path, "np")
        table = file.get_slice("embeddings")
        count = table.get_shape()[0]
    opened = time.perf_counter() - start
    drawn = np.random.default_rng(0)
    places = [sorted(drawn.integers(0, count, BATCH).tolist()) for _ in range(BATCHES)]
    seconds = []
    for again in range(2):  # the first reads the pages from the disk
        for chosen in places:
            start = time.perf_counter()
            if contestant == OURS:
                vectors.take(chosen)
            else:
                np.concatenate([table[place : place + 1] for place in chosen])
            if again:
                seconds.append(time.perf_counter() - start)
    return {OPEN: opened, READ: 1000 * statistics.median(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vectors", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=2560)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(turn(*given.child)))
        return
    shape = {"vectors": given.vectors, "width": given.width, "threads": 1}
    journal = Journal(RESULTS / "vectors.partial", shape)
    place = given.dir or Path(tempfile.gettempdir())
    path = place / f"graftlab-bench-{given.vectors}x{given.width}.safetensors"
    if (LOOKED, 0) not in journal.done or not path.is_file():
        print(f"looking through {path}", flush=True)
        journal.keep(LOOKED, 0, make(path, given.vectors, given.width))
    contestants = {
        name: lambda _, name=name: [
            sys.executable, __file__, "--child", json.dumps([name, str(path)])
        ]
        for name in (OURS, PEER)
    }  # fmt: skip
    turns = in_turns(contestants, given.rounds, threads=1, journal=journal)
    goals = [
        Goal(OPEN, OURS, compare="value", at_most=1.0),
        Goal(READ, OURS, compare="value", at_most=1.0),
        Goal(READ, OURS, PEER),
    ]
    from graftlab.data.vectors import scan

    looked = round(journal.done[LOOKED, 0][LOOKED])
    write("vectors", CLAIM, turns, goals, {**shape, LOOKED: looked})
    journal.end()
    for left in (path, path.with_name(path.name + scan.KEPT)):
        left.unlink()


if __name__ == "__main__":
    main()
