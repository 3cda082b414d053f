"""An embedding model of sentence-transformers, and the record of how it is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from graftlab.backbones._pretrained import quiet
from graftlab.contracts import Note
from graftlab.data.vectors.origin import Origin, differences
from graftlab.errors import Argument, ConfigError, ModelError, Place, missing_extra
from graftlab.rundir import files
from graftlab.training import devices
from graftlab.weights import formats, hub, pretrained

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

# Shapes: N texts, D numbers of a vector.

POOLINGS = ("mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")
Precision = Literal["float32", "bfloat16", "float16"]
EMBEDDER, OTHER = Argument("embedder"), Argument("other_embedder", True)
"""How a command or a call is told where the embedding model is, and that it may be another."""
PARTS = "[0-9]*_*"
"""Folders of the modules behind the transformer: `1_Pooling`, `2_Dense`."""


@dataclass(frozen=True)
class Request:
    """An embedding model, and how it is to be asked; None is as the model has it."""

    model: str
    revision: str | None = None
    prompt: str | None = None
    pooling: str | None = None
    """Only of a model that does not say its own."""
    normalize: bool = False
    truncate_dim: int | None = None
    max_seq_length: int | None = None
    precision: Precision = "float32"


class Embedder:
    """An embedding model that is loaded."""

    def __init__(
        self, model: "SentenceTransformer", origin: Origin, normalize: bool, notes: Sequence[Note]
    ) -> None:
        """With `normalize`, vectors get length 1 behind whatever the model does itself."""
        self._model, self._normalize = model, normalize
        self.origin, self.notes = origin, tuple(notes)
        self.width = int(model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str], batch_size: int) -> "NDArray[np.float32]":
        """Return a vector of each text (N, D)."""
        import numpy as np

        vectors_ND = self._model.encode(
            list(texts),
            prompt=self.origin.prompt,
            batch_size=batch_size,
            show_progress_bar=False,
            normalize_embeddings=self._normalize,
        )
        return np.ascontiguousarray(vectors_ND, "<f4")


def load(request: Request) -> Embedder:
    """Return an embedding model.

    Raises:
        ConfigError: a setting does not fit it.
        ModelError: sentence-transformers is not installed, or the model cannot be found or loaded.
        Refused: its weights are pickles.
    """
    return _load(request, _located(request.model, request.revision))


def reopen(origin: Origin, model: str | None = None, other: bool = False) -> Embedder:
    """Return the embedding model that vectors were made with, asked as it was then: where it was, or at
    `model`. One with `other` weights may stand in its place, with its own length of texts.

    Raises:
        ConfigError, ModelError, Refused: as `load`.
        ModelError: it is another model, or would be asked otherwise, and `other` is not given.
    """
    named = origin.model if model is None else model
    located = _located(named, origin.revision if named == origin.model else None)
    request = Request(
        named,
        located.revision,
        origin.prompt,
        None if _says_pooling(located.folder) else origin.pooling,
        origin.normalized,
        origin.truncate_dim,
        None if other else origin.max_seq_length,
        cast("Precision", origin.precision),
    )
    found = _load(request, located)
    if not other and (odd := differences(origin, found.origin)):
        said = ", ".join(f"{name} {one!r}, here {two!r}" for name, (one, two) in odd.items())
        raise ModelError(
            f"the vectors were made with {origin.model}, and {named} is another model, or asked otherwise: "
            f"{said}.",
            (
                "Put that model back, name it with ",
                EMBEDDER,
                ", or take this one all the same with ",
                OTHER,
                ".",
            ),
            kind="other_embedder",
            given=named,
        )
    return found


def _located(model: str, revision: str | None) -> pretrained.Located:
    """Return where a model is, all of it fetched. `Raises:` ModelError, Refused."""
    try:
        import sentence_transformers  # noqa: F401
    except ModuleNotFoundError as error:
        what = missing_extra("An embedding model", "sentence-transformers", "embeddings")
        raise ModelError(what, kind="not_installed") from error
    found = pretrained.locate(model, revision)
    if found.revision is not None:
        hub.fetch_parts(found.source, found.revision)
    return found


def _load(request: Request, located: pretrained.Located) -> Embedder:
    weights = {**located.sha256, **_weights_of_parts(located.folder)}
    _check_pooling(request, _says_pooling(located.folder))
    model = _opened(located.folder, request)
    _fit(model, request)
    origin = _origin(model, request, located, weights)
    normalize = request.normalize and not _normalizes(model, request)
    dtype = request.precision
    slow = [Note.of("format_slow", key="precision", dtype=dtype, instead="float32")]
    notes = [*located.notes, *(slow if formats.emulated(dtype) else [])]
    return Embedder(model, origin, normalize, notes)


def _says_pooling(folder: Path) -> bool:
    return (folder / "modules.json").is_file()


def _normalizes(model: "SentenceTransformer", request: Request) -> bool:
    """Return whether the model itself gives each vector that is asked for length 1."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    return isinstance(list(model)[-1], Normalize) and request.truncate_dim is None


def _check_pooling(request: Request, own: bool) -> None:
    """Have pooling said once: by the model, or by the request. `Raises:` ConfigError."""
    given, argument = request.pooling, Argument("pooling")
    if own and given is not None:
        said = f"{request.model} says itself how it pools (modules.json)."
        raise ConfigError(said, ("Leave ", argument, " out."), kind="conflict", given=given)
    if not own and given not in POOLINGS:
        said = f"{request.model} has no modules.json, which would say how tokens become one vector."
        remedy = ("Give ", argument, f": {', '.join(POOLINGS)}.")
        raise ConfigError(said, remedy, kind="missing", given=given, allowed=POOLINGS)


def _weights_of_parts(folder: Path) -> dict[str, str]:
    """Return the hashes of weights behind the transformer. `Raises:` Refused: they are pickles."""
    found: dict[str, str] = {}
    for part in sorted(folder.glob(PARTS)):
        weights = sorted(part.glob("*.safetensors"))
        if not weights:
            hub.refuse_pickles(str(part), (path.name for path in part.iterdir()))
        found |= {f"{part.name}/{path.name}": files.sha256(path) for path in weights}
    return found


def _opened(folder: Path, request: Request) -> "SentenceTransformer":
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    how = {"dtype": getattr(torch, request.precision), "use_safetensors": True}
    device = str(devices.beside())
    try:
        with quiet():
            if request.pooling is None:
                return SentenceTransformer(
                    str(folder), device=device, local_files_only=True, model_kwargs=how
                )
            tokens = Transformer(str(folder), model_kwargs=how)
            pooling = Pooling(tokens.get_embedding_dimension(), request.pooling)
            return SentenceTransformer(modules=[tokens, pooling], device=device)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        said = f"{request.model} cannot be opened by sentence-transformers: {error}"
        raise ModelError(said, kind="unreadable", given=request.model) from error


def _fit(model: "SentenceTransformer", request: Request) -> None:
    """Ask the model for so many numbers of so many tokens. `Raises:` ConfigError: it has less."""
    width = int(model.get_embedding_dimension() or 0)
    if request.truncate_dim is not None:
        if request.truncate_dim > width:
            raise _beyond("truncate_dim", request.truncate_dim, width)
        model.truncate_dim = request.truncate_dim
    if request.max_seq_length is not None:
        positions = getattr(getattr(model[0], "auto_model", None), "config", None)
        longest = getattr(positions, "max_position_embeddings", None)
        if longest is not None and request.max_seq_length > longest:
            raise _beyond("max_length", request.max_seq_length, longest)
        model.max_seq_length = request.max_seq_length


def _beyond(name: str, given: int, most: int) -> ConfigError:
    said, place = f"{given} is more than the model has: {most}.", Place(argument=Argument(name))
    return ConfigError(said, kind="not_allowed", place=place, given=given, allowed=f"1 to {most}")


def _origin(
    model: "SentenceTransformer",
    request: Request,
    located: pretrained.Located,
    weights: dict[str, str],
) -> Origin:
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooled = [module for module in model if isinstance(module, Pooling)]
    prompt = request.prompt
    if prompt is None:
        named = model.default_prompt_name
        prompt = (model.prompts[named] if named else None) or ""
    return Origin(
        located.source,
        located.revision,
        weights,
        prompt,
        _said(pooled[-1]) if pooled else "none",
        request.normalize or _normalizes(model, request),
        request.truncate_dim,
        model.max_seq_length,
        request.precision,
    )


def _said(pooling: object) -> str:
    """Return how a module pools, in one word."""
    mode = vars(pooling)["pooling_mode"]
    said = mode if isinstance(mode, str) else "+".join(mode)
    return said if vars(pooling)["include_prompt"] else f"{said}, without the prompt"
