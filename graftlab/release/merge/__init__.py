"""A run's adapter folded into its backbone: a plain transformers folder, and a certificate of what it does.

The folder is loaded again from the disk, without graftlab and peft, and compared with the adapted model: the
logits on a sample of the run's data, each linear layer's output for the same input, and every single weight.
"""

import logging
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from graftlab import inference, runfile
from graftlab.backbones import _pretrained
from graftlab.contracts import Excused, Note, read_notes, written
from graftlab.errors import Argument, ConfigError, ModelError, Place, unknown
from graftlab.inference import Adapted
from graftlab.release.merge import card, outputs, weights
from graftlab.release.merge.records import Certificate, Compared
from graftlab.rundir import files
from graftlab.rundir import run as rundir
from graftlab.runs import material
from graftlab.weights import quantized

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

log = logging.getLogger("graftlab")

CERTIFICATE = "merge.json"
DTYPES = ("float32", "bfloat16", "float16")
# What the logits may differ by, as a share of the largest one, and the Kullback-Leibler divergence (nats). A
# weight that is rounded to 8 or 11 bits is off by up to 0.4 % or 0.05 %; sums over layers make it more.
TOLERANCE = {"float32": (1e-4, 1e-6), "float16": (1e-2, 1e-3), "bfloat16": (5e-2, 1e-2)}


def merge(run: Path, out: Path, dtype: str | None = None, rows: int = 32) -> Certificate:
    """Write the merged model of `run` into the new folder `out`, and return its certificate.

    `dtype` is the backbone's unless given; of one in 4 bits what its layers compute in. A quantized backbone
    is read as what its weights stand for. `rows` examples are compared.

    Raises:
        ConfigError: the method cannot be merged, `out` is there already, or `dtype` is unknown.
        ModelError: the backbone is another one, or the merged model does not do what the run's does: it is
            then beside `out`, with the certificate that says so.
        DiskError: `out` cannot be written.
    """
    _refuse(run)
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(
            unknown("dtype", dtype, DTYPES),
            place=Place(argument=Argument("dtype", dtype)),
            kind="unknown",
            given=dtype,
            allowed=[*DTYPES],
        )
    files.refuse_taken(out)  # before anything is loaded
    adapted = inference.load(run, device="cpu")
    dtype = dtype or own_dtype(adapted)
    with files.new_folder(out) as partial:
        sample = outputs.sample(adapted, rows)
        _write(adapted, partial, dtype)
        certificate = _certify(adapted, partial, sample, dtype)
        files.write_json(partial / CERTIFICATE, certificate)
        files.write_text(partial / "README.md", card.text(certificate))
        if not certificate["passed"]:
            kept = _free(partial.with_name(f"{out.name}.failed"))
            partial.rename(kept)
            raise ModelError(
                f"the merged model does not do what {run} does: {said(certificate)}. It is in {kept}, with "
                f"{CERTIFICATE}, and not in {out}.",
                kind="not_equal",
            )
    return certificate


def certify(run: Path, folder: Path, rows: int = 32) -> Certificate:
    """Return a new certificate for a merged folder that is there already; nothing is written.

    Raises:
        ConfigError: the method cannot be merged.
        ModelError: `folder` cannot be loaded, or the backbone is another one.
    """
    _refuse(run)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json: it is no merged model.")
    adapted = inference.load(run, device="cpu")
    known = files.read_json(folder / "config.json")
    dtype = known.get("dtype") or known.get("torch_dtype") or "float32"
    return _certify(adapted, folder, outputs.sample(adapted, rows), dtype)


def said(certificate: Certificate) -> str:
    """Return in words what a merged model does otherwise."""
    return "; ".join(map(str, read_notes(certificate["problems"])))


def _refuse(run: Path) -> None:
    """Refuse a run whose method is no change of weights, before anything is loaded.

    Raises:
        ConfigError: it is none.
    """
    method = runfile.of_run(rundir.find(run)).method
    mergeable = method.module.PROMISES.mergeable
    if isinstance(mergeable, Excused):
        raise ConfigError(
            f"the method {method.name!r} cannot be merged: {mergeable.reason}. Use the run itself, with "
            f"`graftlab predict {run}`.",
            kind="not_mergeable",
        )


def own_dtype(adapted: Adapted) -> str:
    """Return the number format that a merged model has unless another is asked for."""
    section = adapted.file.backbone.config
    quantization = getattr(section, "quantization", None)
    if quantization is not None and quantization.bits == 4:
        return str(quantization.compute_dtype)
    return str(getattr(section, "dtype", "float32"))


def unquantized(adapted: Adapted, dtype: str | None = None) -> "nn.Module":
    """Return the adapted model once more, on plain weights that stand for the quantized ones.

    They are turned to float32 before the adapter is put on, if they are quantized or `dtype` says so. On the
    CPU: there is room for more than one model.
    """
    import torch

    file = adapted.file
    backbone = material.backbone(file, adapted.problem)
    model: nn.Module = backbone.model.to("cpu")
    if quantized.layers(model):
        quantized.dequantize(model)
        model.float()
    elif dtype == "float32":
        model.to(getattr(torch, dtype))
    loaded: nn.Module = file.method.module.load(
        backbone, file.method.config, adapted.run.adapter_folder
    )
    return loaded.eval()


def _write(adapted: Adapted, folder: Path, dtype: str) -> None:
    """Write config, weights, tokenizer or image processor, and generation config.

    Raises:
        ModelError: transformers cannot write it.
    """
    import torch

    plain = unquantized(adapted, dtype)
    try:
        merged = cast("PreTrainedModel", adapted.file.method.module.merge(plain))
    except (NotImplementedError, RuntimeError, ValueError) as error:
        # peft's own refusals, for fields that method.peft passes on
        raise _unmergeable(adapted, error) from error
    processor = adapted.backbone.processor
    prompts = adapted.run.adapter_folder / "template.json"
    if prompts.is_file():  # what prompts it was trained on
        template = files.read_json(prompts)
        files.write_json(folder / prompts.name, template)
        processor.chat_template = template.get("chat_template") or processor.chat_template
    try:
        with _pretrained.quiet():
            merged.to(getattr(torch, dtype)).save_pretrained(folder)
            processor.save_pretrained(folder)
    except (ValueError, RuntimeError) as error:
        raise _unmergeable(adapted, error) from error


def _unmergeable(adapted: Adapted, error: Exception) -> ModelError:
    text = str(error).strip().split("\n")[0]
    return ModelError(
        f"the adapter of {adapted.run.path} cannot be folded into a plain model: {text} Use the run itself, "
        f"with `graftlab predict {adapted.run.path}`."
    )


def reload(adapted: Adapted, folder: Path, dtype: str) -> "nn.Module":
    """Return the model in `folder` as anybody loads it.

    Raises:
        ModelError: it cannot be loaded, or its weights are not whole.
    """
    import torch
    import transformers

    name = "AutoModelForSequenceClassification"
    if adapted.problem.kind == "tokens":
        name = "AutoModelForCausalLM"
    elif getattr(adapted.backbone.model, "main_input_name", None) == "pixel_values":
        name = "AutoModelForImageClassification"
    kernel = getattr(adapted.backbone.model.config, "_attn_implementation", None)
    try:
        with _pretrained.quiet():
            model, info = getattr(transformers, name).from_pretrained(
                folder, dtype=getattr(torch, dtype), attn_implementation=kernel,
                output_loading_info=True, use_safetensors=True, local_files_only=True,
            )  # fmt: skip
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder} cannot be loaded by transformers: {error}") from error
    lost = [
        key for what in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[what]
    ]
    if lost:
        raise ModelError(f"{folder} does not hold the model's weights: {lost[0]} does not fit.")
    loaded: nn.Module = model.eval()
    return loaded


def _certify(adapted: Adapted, folder: Path, sample: outputs.Sample, dtype: str) -> Certificate:
    """Return what the folder's model does beside the run's, and whether that is the same."""
    size = adapted.batch_size
    as_run = outputs.look(adapted.model, sample, size)
    few_bits = bool(quantized.layers(adapted.model))
    reference = unquantized(adapted) if few_bits else adapted.model
    expected = outputs.look(reference, sample, size) if few_bits else as_run
    loaded = reload(adapted, folder, dtype)
    found = outputs.look(loaded, sample, size)
    compared = outputs.compare(expected, found, loaded)
    own = weights.compare(reference, loaded, adapted.file.method.module)
    problems = [*_beyond(compared, dtype), *weights.problems(own)]
    return {
        "passed": not problems,
        "problems": written(problems),
        "run": str(adapted.run.path),
        "method": adapted.file.method.name,
        "backbone": {k: v for k, v in adapted.backbone.record.items() if k != "notes"},
        "dtype": dtype,
        "sample": {"what": sample.what, "rows": sample.rows, "notes": written(sample.notes)},
        "compared": compared,
        "weights": own,
        "quantized": outputs.compare(as_run, found, loaded) if few_bits else None,
        "tolerance": dict(zip(("logits", "kl"), TOLERANCE[dtype], strict=True)),
        "sha256": {path.name: files.sha256(path) for path in sorted(folder.glob("*.safetensors"))},
        "versions": {name: version(name) for name in ("graftlab", "torch", "transformers", "peft")},
    }


def _beyond(compared: Compared, dtype: str) -> list[Note]:
    """Return what differs by more than rounding to `dtype` explains."""
    share, kl = TOLERANCE[dtype]
    largest, scale, found = compared["logits"]["largest"], compared["logits"]["scale"], []
    if largest is None or scale is None:
        return [Note.of("logits_not_finite")]
    limit = share * max(0.1, scale)
    if largest > limit:
        found.append(Note.of("logits_differ", largest=largest, limit=limit, dtype=dtype))
    if compared["kl"] is not None and compared["kl"] > kl:
        found.append(Note.of("outputs_diverge", kl=compared["kl"], limit=kl))
    return found


def _free(path: Path) -> Path:
    """Return `path`, or the first of path-2, path-3, ... where nothing is."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
