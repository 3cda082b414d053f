"""Fetch a model from the Hugging Face hub, or from its cache, and say plainly why that fails.

The token is `HF_TOKEN` of the environment, and no message repeats it.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from graftlab.contracts import Note
from graftlab.errors import DiskError, ModelError, Refused
from graftlab.terminal import redact

TIMEOUT = 5.0  # seconds for the hub's first answer; after that it counts as out of reach
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
CONVERT = (
    "Only safetensors are loaded, because opening a pickle can run any code. Convert it where you "
    "trust it: transformers' AutoModel.from_pretrained(FOLDER).save_pretrained(OTHER_FOLDER)."
)
# Exactly what transformers opens: not `consolidated.safetensors`, the same weights a second time.
KERNELS = ("attn_implementation", "experts_implementation")
"""Keys of a config by which transformers takes `owner/name` as a kernel of the hub."""
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
PARTS = ["[0-9]*_*/config.json", "[0-9]*_*/*.safetensors"]
TEXTS = ("*.json", "*.txt", "*.model", "*.jinja")


class Fetched(NamedTuple):
    """A model's files on this machine."""

    folder: Path
    commit: str
    notes: tuple[Note, ...] = ()
    """Why the cache was used without asking the hub, if it was."""


def refuse_pickles(where: str, names: Iterable[str]) -> None:
    """Raise Refused if there are pickled weights among file names."""
    if pickles := sorted(name for name in names if name.endswith(PICKLES)):
        raise Refused(f"{where} has its weights as pickles only ({pickles[0]}). {CONVERT}")


def refuse_kernels(where: str, config: object) -> None:
    """Raise Refused if a model's config, or one inside it, asks for kernels from the hub, which are code."""
    if not isinstance(config, Mapping):
        return
    for key, value in config.items():
        named = value.values() if isinstance(value, Mapping) else (value,)
        if key.strip("_").startswith(KERNELS) and any("/" in str(name) for name in named):
            raise Refused(
                f"{where}: {key} in its config.json asks for a kernel of the hub ({value}), which is code of "
                f"others. Remove the key, and say backbone.attention instead."
            )
        refuse_kernels(where, value)


def fetch(hub_id: str, revision: str | None, weights: bool) -> Fetched:
    """Return a model's files: as the hub has them, or from the cache where the hub gives nothing.

    Raises:
        ModelError: neither the hub nor the cache has them; the message says why and what to do.
        Refused: the hub has the weights as pickles only.
        DiskError: they do not fit on the disk.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    token = os.environ.get("HF_TOKEN") or False
    try:
        info = HfApi(token=token).model_info(hub_id, revision=revision, timeout=TIMEOUT)
        names = [file.rfilename for file in info.siblings or ()]
        if weights and not any(name.endswith(".safetensors") for name in names):
            refuse_pickles(hub_id, names)
        # by name, not by info.sha: the cache has to learn to which commit the name belongs
        folder = _snapshot(hub_id, revision, weights, online=True)
        return Fetched(folder, folder.name)
    except (HTTPError, OfflineModeIsEnabled) as error:
        reason = explain(hub_id, revision, error)
        if (cached := _cached(hub_id, revision, weights)) is None:
            raise ModelError(reason) from error
        note = Note.of("from_the_cache", model=hub_id, revision=cached.name, reason=reason)
        return Fetched(cached, cached.name, (note,))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(
                f"no room for {hub_id}: {error}. Set HF_HOME to a larger disk."
            ) from error
        raise ModelError(f"{hub_id} was fetched only in part: {redact(str(error))}") from error


def _snapshot(hub_id: str, revision: str | None, weights: bool, online: bool) -> Path:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        hub_id,
        revision=revision,
        token=os.environ.get("HF_TOKEN") or False,
        local_files_only=not online,
        allow_patterns=[*TEXTS, *(WEIGHTS if weights else ())],
        ignore_patterns=["*/*"],  # the same model again, for other programs
    )
    return Path(folder)


def fetch_parts(hub_id: str, commit: str) -> None:
    """Fetch what stands in folders of its own beside an embedding model's weights: `1_Pooling`, `2_Dense`.

    They come to where `fetch` has put the model; what the cache has is taken where the hub gives nothing.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    token = os.environ.get("HF_TOKEN") or False
    # a part that is in neither place is missed by sentence-transformers, which reads its modules.json
    with contextlib.suppress(HTTPError, OfflineModeIsEnabled):
        snapshot_download(hub_id, revision=commit, token=token, allow_patterns=PARTS)


def _cached(hub_id: str, revision: str | None, weights: bool) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(hub_id, revision, weights, online=False)
    except LocalEntryNotFoundError:
        return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def explain(hub_id: str, revision: str | None, error: Exception) -> str:
    """Return why the hub did not give a model, and what to do."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    has_token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            f"HF_HUB_OFFLINE forbids to ask the hub for {hub_id}. Unset it, fetch the model once "
            f"where there is a network, or give a folder as backbone.model."
        )
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{hub_id} is gated: accept its licence at https://huggingface.co/{hub_id}, and set "
            f"HF_TOKEN to a token of the account that did ({has_token})."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{hub_id} has no revision {revision!r} on the hub. Correct backbone.revision."
    return {
        401: f"the hub does not know who asks for {hub_id} (401; {has_token}): the model is "
        f"private or does not exist, or the token has expired.",
        403: f"the hub does not allow this account to read {hub_id} (403; {has_token}).",
        404: f"the hub has no model {hub_id!r}, or it is private ({has_token}).",
        429: f"the hub has had too many requests from here (429). Wait some minutes, and set "
        f"HF_TOKEN for a higher limit ({has_token}).",
    }.get(status or 0) or _unreachable(hub_id, status, error)


def _unreachable(hub_id: str, status: int | None, error: Exception) -> str:
    if status:
        return f"the hub failed with {status} when asked for {hub_id}. Try again later."
    if any(isinstance(cause, socket.gaierror) for cause in _causes(error)):
        why = "its name cannot be resolved (DNS)"
    else:
        why = redact(str(error)) or type(error).__name__
    return (
        f"the hub is out of reach for {hub_id}: {why}. Check the network (HF_ENDPOINT, proxies), "
        f"or give a folder as backbone.model."
    )
