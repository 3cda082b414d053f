"""The sha256 of a model's weight files, each found whole."""

import hashlib
import json
import re
from pathlib import Path

from graftlab.errors import ModelError
from graftlab.weights.hub import WEIGHTS, refuse_pickles


def of_folder(folder: Path) -> dict[str, str]:
    """Return the sha256 of each weight file of a folder, by name.

    Raises:
        ModelError: a file is missing, cut short, or not what the hub's cache says it is.
        Refused: the only weights are pickles.
    """
    files = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():
        wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if missing := sorted(wanted - {path.name for path in files}):
            raise ModelError(
                f"{folder} lacks {', '.join(missing)}, which {index.name} names", kind="missing"
            )
    if not files:
        refuse_pickles(str(folder), (path.name for path in folder.iterdir()))
        raise ModelError(
            f"{folder} holds no weights: neither model.safetensors nor its shards",
            kind="no_weights",
        )
    return {path.name: _of_file(path) for path in files}


def _of_file(path: Path) -> str:
    """Return a safetensors file's sha256.

    Its length is checked against its header; in the hub's cache, its hash against the blob's name.
    """
    path, advice = path.resolve(), "Delete it and fetch it again."
    with path.open("rb") as stream:
        try:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length < 100_000_000 else {}
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path} is damaged: it has no safetensors header. {advice}", kind="damaged"
            ) from error
        expected, actual = 8 + length + max(ends, default=0), path.stat().st_size
        if expected != actual:
            raise ModelError(
                f"{path} is damaged: {actual} bytes instead of {expected}. {advice}", kind="damaged"
            )
        stream.seek(0)
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    blob = path.name
    if re.fullmatch(r"[0-9a-f]{64}", blob) and blob != sha256:
        raise ModelError(f"{path} is damaged: its sha256 is {sha256}. {advice}", kind="damaged")
    return sha256
