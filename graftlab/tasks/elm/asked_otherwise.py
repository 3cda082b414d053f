"""The rows of a split asked otherwise: by other vectors, by none, by the text itself.

What a model writes of a vector says little by itself: the question alone tells how an answer looks. Beside
these controls, on the same rows with the same answers, it shows whether the vector is read at all.

    shuffled   the vector of another text that is asked the same; no text keeps its own
    random     drawn from a normal distribution, as long as the row's own
    zero       all zeros
    prompt     no vector: the LLM has the question alone
    text       the text itself in the vector's place: what the LLM makes of all there is to know
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graftlab.contracts import Backbone, Controls, Data, Row, Task
from graftlab.data import readers
from graftlab.errors import DataError
from graftlab.seeds import mix
from graftlab.tasks.elm import row_vectors, tree
from graftlab.tasks.elm import rows as row_files
from graftlab.tasks.elm.fields import Config
from graftlab.tasks.generation.answers import RowVectors
from graftlab.tasks.generation.chat import VECTOR
from graftlab.tasks.generation.fields import Config as Texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shapes: N rows, D numbers of a vector.

OWN = "vectors"
"""The rows as they are."""
Key = tuple[str, str, int]
"""A row's task type, and the file and place of its vector."""


class Changed:
    """Rows' vectors, each made into another."""

    def __init__(
        self, own: RowVectors, change: "Callable[[Row, NDArray[np.float32]], NDArray[np.float32]]"
    ) -> None:
        self._own, self._change = own, change
        self.num_tokens = own.num_tokens

    @property
    def record(self) -> Mapping[str, object]:
        return self._own.record

    def take(self, rows: Sequence[Row]) -> "NDArray[np.float32]":
        """Return what is read in the place of each row's vector (N, D)."""
        import numpy as np

        pairs = zip(rows, self._own.take(rows), strict=True)
        return np.stack([self._change(row, vector_D) for row, vector_D in pairs])


def of(data: Data, split: str, backbone: Backbone, config: Config, seed: int) -> Controls:
    """Return the rows of a split as they are, and asked otherwise; what is drawn comes from the seed.

    Raises:
        DataError: texts that are there are not those of the vectors.
    """
    from graftlab.tasks.generation.task import GenerationTask

    rows = data.splits[split]
    files = row_files.opened(config)
    own = row_vectors.RowVectors(files, files["train"].width, config.num_tokens)
    asked = _written(config.texts, split)

    def bound(texts: Texts, vectors: RowVectors | None, of: Sequence[Row] = rows) -> Task:
        return GenerationTask(Data({split: of}, data.problem), backbone, texts, seed, vectors)

    assert asked.prompt is not None
    words = asked.prompt.lstrip(VECTOR).lstrip("\n")
    alone = asked.model_copy(update={"prompt": words})
    tasks: dict[str, Task | str] = {OWN: bound(asked, own)}
    others = _others(rows, seed)
    tasks["shuffled"] = (
        others if isinstance(others, str) else bound(asked, Changed(own, _shuffled(own, others)))
    )
    tasks["random"] = bound(asked, Changed(own, _random(seed)))
    tasks["zero"] = bound(asked, Changed(own, _zero))
    tasks["prompt"] = bound(alone, None)
    told = _told(rows, config)
    made_of = {}
    if isinstance(told, str):
        tasks["text"] = told
    else:
        before = {"prompt": f"{{text}}\n{words}", "cut": ("text",)}
        whole = alone.model_copy(update={**before, "max_length": backbone.max_length})
        tasks["text"] = bound(whole, None, told)
        shown = json.dumps([row["fields"]["text"] for row in told])
        made_of["text"] = hashlib.sha256(shown.encode()).hexdigest()
    sources = [f"{row['file']}:{row['vector']}" for row in rows]
    return Controls(tasks, sources, [row["task_type"] for row in rows], made_of)


def _written(texts: Texts, split: str) -> Texts:
    """Return the task with answers written for this split, whatever the run itself writes for."""
    writing = texts.generation.model_copy(update={"splits": (split,), "at_evaluations": None})
    return texts.model_copy(update={"generation": writing})


def _key(row: Row) -> Key:
    return row["task_type"], row["file"], row["vector"]


def _others(rows: Sequence[Row], seed: int) -> dict[Key, Row] | str:
    """Return for each text that is asked something another one that is asked the same: one circle of all,
    drawn. Or why there is none."""
    import numpy as np

    of_kind: dict[str, dict[Key, Row]] = defaultdict(dict)
    for row in rows:
        of_kind[row["task_type"]].setdefault(_key(row), row)
    found: dict[Key, Row] = {}
    for kind, texts in of_kind.items():
        if len(texts) < 2:
            return f"there is one text alone that is asked for {kind}"
        keys = list(texts)
        order = np.random.default_rng(mix(seed, "shuffled", kind)).permutation(len(keys)).tolist()
        following = [*order[1:], order[0]]
        found |= {keys[a]: texts[keys[b]] for a, b in zip(order, following, strict=True)}
    return found


def _zero(row: Row, vector_D: "NDArray[np.float32]") -> "NDArray[np.float32]":
    return vector_D * 0


def _shuffled(
    own: RowVectors, others: Mapping[Key, Row]
) -> "Callable[[Row, NDArray[np.float32]], NDArray[np.float32]]":
    def other(row: Row, vector_D: "NDArray[np.float32]") -> "NDArray[np.float32]":
        found_D: NDArray[np.float32] = own.take([others[_key(row)]])[0]
        return found_D

    return other


def _random(seed: int) -> "Callable[[Row, NDArray[np.float32]], NDArray[np.float32]]":
    import numpy as np

    def drawn(row: Row, vector_D: "NDArray[np.float32]") -> "NDArray[np.float32]":
        draws = np.random.default_rng(mix(seed, "random", row["file"], row["vector"]))
        normal_D = draws.normal(size=vector_D.shape)
        scaled_D: NDArray[np.float32] = (
            normal_D * (np.linalg.norm(vector_D) / np.linalg.norm(normal_D))
        ).astype(np.float32)
        return scaled_D

    return drawn


def _told(rows: Sequence[Row], config: Config) -> list[Row] | str:
    """Return the rows with their texts among their fields, or why the texts are not known.

    Raises:
        DataError: there are not as many texts as vectors.
    """
    assert config.data_dir is not None
    texts: dict[str, list[Any]] = {}
    opened = row_files.opened(config)
    for split in {row["file"] for row in rows}:
        vectors = opened[split]
        path = vectors.path.with_name(tree.TEXTS)
        if not path.is_file():
            return f"there is no {path}, which `graftlab synthesize` writes"
        texts[split] = [row.get("text") for _, row in readers.read(path) if isinstance(row, dict)]
        if len(texts[split]) != len(vectors) or not all(isinstance(t, str) for t in texts[split]):
            said = f"{path} has {len(texts[split])} texts, and there are {len(vectors)} vectors."
            raise DataError(f"{said} Embed the texts again.", kind="conflict")
    return [
        {**row, "fields": {**row["fields"], "text": texts[row["file"]][row["vector"]]}}
        for row in rows
    ]
