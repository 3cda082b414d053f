"""`graftlab embed` beside SentenceTransformer.encode, both of the same texts by the same model.

python bench/embed.py [--rounds 5] [--texts 1000] [--model minilm]

What is compared is wall time from the loaded model to the vectors in a file: ours writes them block by block
and makes each durable, so that a kill costs a block; the peer encodes all texts at once, the longest first,
and writes one file at the end. Texts are made of random words, five to two hundred of them. One thread.
Stopped, it goes on after the last turn.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from harness import Goal, race

BATCH = 32
OURS, PEER = "graftlab embed", "SentenceTransformer.encode"
EMBEDDED, RATE = "embedded (s)", "texts a second"
CLAIM = (
    "Texts become vectors in a file in at most 1.1 times the time of `SentenceTransformer.encode` with the "
    "texts sorted by length, though a kill costs at most a block of 512 texts. Batches of 32; loading is not "
    "counted."
)


def texts(count: int) -> list[str]:
    """Return texts of five to two hundred random words; the same every time."""
    drawn = random.Random(0)
    words = ["".join(drawn.choices("aeioulnrst", k=drawn.randint(2, 9))) for _ in range(2000)]
    return [" ".join(drawn.choices(words, k=drawn.randint(5, 200))) for _ in range(count)]


def turn(contestant: str, model: str, count: int) -> dict[str, float]:
    """Return how long the texts take."""
    from graftlab.data.vectors import store
    from graftlab.embeddings import blocks
    from graftlab.embeddings.texts import Texts
    from graftlab.encoders import embedder

    loaded, values = embedder.load(embedder.Request(model)), texts(count)
    loaded.encode(values[:BATCH], BATCH)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        if contestant == OURS:
            blocks.write(Texts("here", values), loaded, Path(folder), BATCH, quiet=True)
        else:
            order = sorted(range(count), key=lambda i: -len(values[i]))
            found = loaded.encode([values[i] for i in order], BATCH)
            made = found.copy()
            made[order] = found
            store.write(Path(folder) / "embeddings.safetensors", made)
        seconds = time.perf_counter() - start
    return {EMBEDDED: seconds, RATE: count / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(turn(*given.child)))
        return
    contestants = {
        name: lambda _, name=name: [
            sys.executable, __file__, "--child", json.dumps([name, given.model, given.texts])
        ]
        for name in (OURS, PEER)
    }  # fmt: skip
    goals = [Goal(EMBEDDED, OURS, PEER, at_most=1.1)]
    settings = {"texts": given.texts, "model": given.model, "batch": BATCH}
    race("embed", CLAIM, contestants, goals, settings, given.rounds, threads=[1])


if __name__ == "__main__":
    main()
