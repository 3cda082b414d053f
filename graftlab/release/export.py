"""A run's adapter in a form that other programs load."""

import math
import re
from pathlib import Path
from typing import TypedDict

from graftlab import inference, runfile
from graftlab.adapters.files import CONFIG, write
from graftlab.contracts import Note, written
from graftlab.errors import ConfigError, ModelError
from graftlab.rundir import files, manifest
from graftlab.rundir import run as rundir


def lora(run: Path, out: Path) -> dict[str, object]:
    """Write the adapter of `run` as plain PEFT LoRA, loaded by peft, vLLM and others, and return its config.

    The folder holds adapter_config.json, adapter_model.safetensors, with the head of a classifier, and
    manifest.json. It is written beside and moved into its place: whole, or not there.

    Raises:
        ConfigError: the method has no LoRA form, or `out` is there already.
        DiskError: `out` cannot be written.
    """
    found = rundir.find(run)
    method = runfile.of_run(found).method
    if method.module.to_lora is None:
        raise ConfigError(
            f"the method {method.name!r} has no LoRA form: what it learned is not, or not only, a "
            f"low-rank change of linear weights. Its adapter is in {found.adapter}.",
            kind="no_lora_form",
        )
    files.refuse_taken(out)  # before anything is loaded
    adapted = inference.load(run, device="cpu")
    fields, tensors = method.module.to_lora(adapted.model)
    with files.new_folder(out) as partial:
        write(partial, fields, tensors)
        manifest.write(partial, manifest.inside(partial))
    written: dict[str, object] = fields
    return written


class Group(TypedDict):
    """Tensors of one kind and number format in one file."""

    file: str
    name: str
    dtype: str
    tensors: int
    bytes: int
    share: float
    """Of the bytes of all tensors."""


class Audit(TypedDict):
    """What takes the room in an adapter's folder."""

    files: dict[str, int]
    """Bytes by name."""
    groups: list[Group]
    notes: list[dict[str, object]]
    """What need not be there."""


def audit(folder: Path) -> Audit:
    """Return what takes the room in an adapter's folder, or a run's: by file, and by group of tensors.

    Headers are read only.

    Raises:
        ModelError: there is no safetensors file in it, or a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    inside = folder / "adapter" if (folder / "adapter").is_dir() else folder
    manifest.check(inside, error=ModelError)
    paths = sorted(inside.glob("*.safetensors"))
    if not paths:
        raise ModelError(f"{inside} holds no safetensors file: it is no adapter.")
    named: list[tuple[str, str, str, int]] = []
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (it is no mapping)
                    part = file.get_slice(name)
                    numel = math.prod(part.get_shape())
                    named.append((path.name, name, part.get_dtype(), numel))
        except SafetensorError as error:
            raise ModelError(f"{path} is damaged: {error}", kind="damaged") from error
    total = sum(_bytes(dtype, numel) for *_, dtype, numel in named)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for file_name, name, dtype, numel in named:
        groups.setdefault((file_name, _group(name), dtype), []).append(_bytes(dtype, numel))
    rows: list[Group] = [
        {"file": file_name, "name": group, "dtype": dtype, "tensors": len(sizes), "bytes": sum(sizes),
         "share": sum(sizes) / total if total else 0.0}
        for (file_name, group, dtype), sizes in groups.items()
    ]  # fmt: skip
    on_disk = {
        path.name: path.stat().st_size for path in sorted(inside.iterdir()) if path.is_file()
    }
    rows.sort(key=lambda row: -row["bytes"])
    return {"files": on_disk, "groups": rows, "notes": written(_superfluous(inside, rows))}


WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}  # others one byte
GROUPS = (  # the first that a tensor's name fits; what is the backbone's own comes before the head
    ("the backbone's weights", r"\.base_layer\.|\.original_module\."),
    ("embeddings", r"embed_tokens|word_embeddings|\bwte\b|embed_in|lm_head|embed_out"),
    ("adapter", r"lora_|jelly_|bitfit_|prompt_embeddings|prompt_encoder|ia3_|initial_[AB]$"),
)


def _bytes(dtype: str, numel: int) -> int:
    return WIDTHS.get(dtype, 1) * numel


def _group(name: str) -> str:
    return next((group for group, words in GROUPS if re.search(words, name)), "head and others")


def _superfluous(folder: Path, rows: list[Group]) -> list[Note]:
    """Return what takes room in an adapter and need not; of a model that was trained in full, nothing."""
    if not (folder / CONFIG).is_file():
        return []
    found = []
    for row in rows:
        file, size, share = row["file"], row["bytes"], row["share"]
        if row["name"] == "the backbone's weights":
            found.append(Note.of("backbone_kept", file=file, bytes=size, share=share))
        if row["name"] == "embeddings":
            found.append(Note.of("embeddings_kept", file=file, bytes=size, share=share))
        if row["dtype"] == "F64":
            found.append(Note.of("float64_kept", file=file, bytes=size, share=share))
    for name in ("optimizer.pt", "pytorch_model.bin", "adapter_model.bin", "training_args.bin"):
        if (folder / name).is_file():
            found.append(Note.of("pickle_unread", file=name))
    return found
