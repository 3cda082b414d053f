"""What is said of a name that is not known, or of a package that is not there."""

import difflib
from collections.abc import Iterable
from pathlib import Path

WORDS = {  # what others call names and values of ours
    "acc": "accuracy",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_hf": "adamw",
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "bfloat16": "bf16",
    "bf16": "bfloat16",
    "constant_with_warmup": "constant",
    "dev": "validation",
    "em": "exact_match",
    "eval": "validation",
    "f1": "macro_f1",
    "float16": "fp16",
    "float32": "fp32",
    "fp16": "float16",
    "fp32": "float32",
    "half": "float16",
    "mcc": "matthews",
    "prefix_tuning": "prefix",
    "prompt_tuning": "prompt",
    "qlora": "lora",
    "reduce_lr_on_plateau": "plateau",
    "val": "validation",
    "valid": "validation",
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was probably meant to be, or None."""
    known = list(known)
    same = (other for other in known if other.casefold() == name.casefold())
    close = difflib.get_close_matches(name, known, n=1)
    word = WORDS.get(name.lower())
    begun = [other for other in known if len(name) > 2 and other.startswith(name)]
    found = (next(same, None), word if word in known else None, *close, *begun[:1])
    return next(filter(None, found), None)


def near_file(path: Path) -> str:
    """Return which file was probably meant by a path at which there is none, as a question: one beside it of
    the same name but for its ending, or of nearly the same; nothing where there is no such file."""
    try:
        if path.exists():
            return ""
        there = [other for other in path.parent.iterdir() if not other.name.startswith(".")]
    except OSError:
        return ""
    named_so = [other.name for other in there if other.stem.casefold() == path.stem.casefold()]
    alike = {other.stem: other.name for other in there if other.suffix == path.suffix}
    close = nearest(path.name, named_so) or alike.get(nearest(path.stem, alike) or "")
    return f" Did you mean {str(path.with_name(close))!r}?" if close else ""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return a message that names the culprit, the closest valid name, and all the others."""
    known = sorted(set(known))
    close = nearest(name, known)
    hint = f" Did you mean {close!r}?" if close else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(known) or 'none'}."


def missing_extra(what: str, package: str, extra: str) -> str:
    """Return a message that names the extra which brings a package that is not installed."""
    return (
        f"{what} needs the package {package!r}. Install it with: pip install 'graftlab[{extra}]'."
    )
