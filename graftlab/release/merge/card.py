"""The certificate of a merged model for those who read: its README.md, which the hub shows as its page."""

from graftlab.contracts import read_notes
from graftlab.release.merge.records import Certificate, Compared


def text(certificate: Certificate) -> str:
    """Return the page of a merged folder."""
    return "\n".join([*_head(certificate), "", *_body(certificate)]) + "\n"


def _head(certificate: Certificate) -> list[str]:
    source = certificate["backbone"].get("source")
    known = [f"base_model: {source}"] if source and not str(source).startswith("/") else []
    return ["---", "library_name: transformers", *known, "tags: [graftlab, merged]", "---"]


def _body(certificate: Certificate) -> list[str]:
    source, method = certificate["backbone"].get("source"), certificate["method"]
    verdict = "the same as" if certificate["passed"] else "NOT the same as"
    lines = [
        "# A merged model",
        "",
        f"{source} with an adapter ({method}) folded into its weights, in {certificate['dtype']}. "
        "transformers loads it as it is; neither graftlab nor peft is needed.",
        "",
        "## Certificate",
        "",
        f"This folder, loaded again from the disk, does {verdict} the adapted model that it was made from.",
    ]
    lines += [f"- {problem}" for problem in read_notes(certificate["problems"])]
    lines += ["", *_table(certificate["compared"], certificate["sample"]["what"])]
    own = certificate["weights"]
    lines += [
        "",
        f"Of {own['tensors']} tensors, {own['off']} numbers are off by more than they had to be rounded.",
    ]
    if certificate["quantized"] is not None:
        quantization = certificate["backbone"]["quantization"]
        assert isinstance(quantization, dict)
        bits = quantization["bits"]
        lines += [
            "",
            f"## What leaving {bits} bits has cost",
            "",
            f"It was trained on weights of {bits} bits; here stand the numbers that they are read as. Beside "
            f"the adapted model in {bits} bits:",
            "",
            *_table(certificate["quantized"], certificate["sample"]["what"]),
        ]
    return lines


def _table(compared: Compared, what: str) -> list[str]:
    logits, worst = compared["logits"], compared["worst_layer"]
    rows = [
        ("largest difference of a logit", _number(logits["largest"])),
        ("mean difference of a logit", _number(logits["mean"])),
        ("largest logit", _number(logits["scale"])),
        ("Kullback-Leibler divergence, nats", _number(compared["kl"])),
    ]
    if worst is not None:
        said = f"{_number(worst['difference'])} of its largest output, {worst['name']}"
        rows.append(("worst layer", said))
    rows += [
        (f"{name}, before and after", f"{_number(pair['before'])}, {_number(pair['after'])}")
        for name, pair in compared["scores"].items()
        if pair["before"] is not None
    ]
    return [f"| on {what} | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
