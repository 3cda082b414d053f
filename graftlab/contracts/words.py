"""The words of each kind of note: the one place that says them, and the list of the kinds that there are."""

from collections.abc import Callable, Mapping, Sequence

from graftlab.rundir.manifest import DAMAGE

MIB, GIB = 2**20, 2**30
MOST_CLASSES = 10  # that are named in one note


def _quotas(drawn: Mapping[str, Mapping[str, int]]) -> str:
    said = (f"{name} {n['draws']} (has {n['rows']})" for name, n in drawn.items())
    return f"an epoch draws of each task: {', '.join(said)}"


def _damaged(checkpoint: str, files: Mapping[str, str]) -> str:
    said = "; ".join(DAMAGE[what].format(file=file) for file, what in files.items())
    return f"{checkpoint}: {said}"


def _packaged(model: str, package: str, equal: bool, reason: str) -> str:
    rounded = (
        ""
        if equal
        else (", its weights quantized blocks made float32, close to the hub's and not equal")
    )
    return f"{model} comes from the installed package {package}{rounded}: {reason}"


def _set_aside(checkpoint: str, files: Mapping[str, str], aside: str) -> str:
    return f"{_damaged(checkpoint, files)}; kept as {aside}"


def _close_to_the_end(
    peak: int, free: int, device: str, largest: Sequence[tuple[str, int]], options: Sequence[str]
) -> str:
    what = "more than" if peak > free else "nearly all of"
    shown = ", ".join(f"{name} ({size / MIB:.0f} MiB)" for name, size in largest)
    return (
        f"the peak of {peak / GIB:.2f} GiB is {what} the {free / GIB:.2f} GiB that are free on {device}. "
        f"Largest tensors: {shown}. Options: {'; '.join(options)}."
    )


def _shared_gpu(free: int, total: int) -> str:
    return f"the GPU is in use by others: {free / GIB:.1f} of {total / GIB:.1f} GiB are free"


def _cut(examples: int, of: int, sampled: bool) -> str:
    whole = f"{of} looked at" if sampled else f"{of}"
    return f"{examples} training examples (of {whole}) are longer than allowed, and are cut"


def _no_effect(place: str | None, key: str, because: str, value: object) -> str:
    why = f"{because} ({value}) decides" if value is not None else f"{because} names no tracker"
    return f"{f'{place}: ' if place else ''}{key} has no effect: {why}."


def _replaced(folder: str, date: str | None, cause: str | None, changed: Sequence[str]) -> str:
    why = f": {cause.rstrip('.')}" if cause else ""
    said = f" Changed since: {', '.join(changed)}." if changed else " Its run file was the same."
    return (
        f"{folder} held a run of {date} that ended before its first checkpoint{why}. It is begun anew, and "
        f"nothing of worth is lost.{said}"
    )


def _read_as(file: str, found: Mapping[str, str]) -> str:
    said = "; ".join(READ_AS[key].format(FIELDS.get(value, value)) for key, value in found.items())
    return f"{file} is read so: {said}"


def _numbers(rows: Sequence[int | str]) -> str:
    return ", ".join(map(str, rows))


def _rows(count: int, rows: Sequence[int | str]) -> str:
    """Say how many rows, and the first of them: numbers, or files."""
    named = f"{_numbers(rows)}{', ...' if count > len(rows) else ''}"
    what = "file" if any(isinstance(row, str) for row in rows) else "row"
    return f"{count} {what}s ({named})" if count > 1 else f"{what} {named}"


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels))


def _class_counts(
    rows: int, classes: Mapping[str, int], largest: str, right: Mapping[str, float]
) -> str:
    shown = ", ".join(f"{name} {count}" for name, count in [*classes.items()][:MOST_CLASSES])
    more = f" and {len(classes) - MOST_CLASSES} more" if len(classes) > MOST_CLASSES else ""
    said = ", ".join(f"{share:.1%} of {split}" for split, share in right.items())
    always = f"; always saying {largest!r} is right on {said}" if said else ""
    return f"train has {rows} rows of {len(classes)} classes: {shown}{more}{always}"


def _marks_unknown(marks: Sequence[str]) -> str:
    return (
        f"the chat template writes {', '.join(marks)}, and the tokenizer has no such token: they are spelled "
        f"out, and no token ends a turn. Take a template of the model's own as task.chat_template_file, or a "
        f"backbone that was made for this one"
    )


FIELDS = {"\t": "tabs"}
READ_AS = {
    "encoding": "encoding {} (task.encoding)",
    "line_end": "a line ends with {} alone",
    "delimiter": "fields parted by {} (task.delimiter)",
    "quoting": "quotes are text (task.quoting: {})",
}
"""What there is to say of how a text file is read, each with the key that overrules it."""

WORDS: Mapping[str, str | Callable[..., str]] = {
    "said": "{text}",
    # how the data came about
    "read_as": _read_as,
    "quotes_open": (
        "{file}, line {line}: a quote is opened and not closed, and each line has as many fields as the "
        "header all the same: rows may have become one. task.quoting: none takes quotes as text; "
        "task.quoting: double says that this is meant"
    ),
    "rows_blank": lambda file, count: (
        f"{file}: {count} row{'s' if count > 1 else ''} with nothing in any cell passed over"
    ),
    "decimal_commas": "{column} is read with decimal commas: 3,5 is three and a half",
    "system_files": "{folder}: {count} hidden files and files of systems are left out",
    "split_unlabelled": "{split} has no labels and is left out",
    "validation_is_test": "the validation split is used as test",
    "no_test": "there is no test split",
    "rows_repeated": "{rows} rows of {split} dropped: they are also in {other}",
    "test_carved": "test carved from train: {rows} rows (task.test_share)",
    "validation_carved": "validation carved from train: {rows} rows",
    "rows_left_out": "{split}: {rows} rows ({reason}) left out",
    "drawn_of_tasks": _quotas,
    "marks_unknown": _marks_unknown,
    # what the data doctor finds
    "class_counts": _class_counts,
    "label_variants": lambda labels, count, rows: (
        f"labels differ by case or blanks alone: {_listed(labels)} ({_rows(count, rows)}). task.labels as a "
        f"mapping makes one class of them"
    ),
    "labels_truths": lambda labels, count, rows: (
        f"labels that may mean the same are classes of their own: {_listed(labels)} ({_rows(count, rows)}). "
        f"task.labels as a mapping makes one class of them"
    ),
    "labels_once": lambda count, labels, rows: (
        f"{count} labels stand in one row alone: {_listed(labels)} (rows {_numbers(rows)}). task.drop_labels "
        f"leaves them out"
    ),
    "labels_numbers": lambda count, labels, rows: (
        f"the labels are {count} numbers, and each is a class of its own: {_listed(labels)} (rows "
        f"{_numbers(rows)}). For scores say task.regression: true; else name the classes in task.labels"
    ),
    "labels_contrary": lambda split, count, rows: (
        f"{split}: the same input stands again with another label in {_rows(count, rows)}. Mend the data, or "
        f"keep the first with task.duplicates: drop"
    ),
    "inputs_empty": lambda where, count, rows: (
        f"{where}: nothing stands in the text of {_rows(count, rows)}: what is answered there says nothing"
    ),
    "texts_empty": lambda split, column, count, rows: (
        f"{split}: {column} is empty in {_rows(count, rows)}. task.empty: drop leaves them out, refuse stops"
    ),
    "inputs_repeated": lambda split, count, rows: (
        f"{split}: an input stands again in {_rows(count, rows)}. task.duplicates: drop keeps the first"
    ),
    "column_constant": lambda split, column, value, of, count, rows: (
        f"{split}: {column} is {value!r} in {_rows(count, rows)} of {of}. Is another column meant in "
        f"task.columns?"
    ),
    "texts_long": lambda split, column, limit, words, count, rows: (
        f"{split}: {column} has more than {limit} words in {_rows(count, rows)}, {words} in the longest: "
        f"what is behind task.max_length tokens is cut"
    ),
    "rows_in_two_splits": lambda split, other, count, rows: (
        f"{_rows(count, rows)} of {split} dropped: they are also in {other}. task.overlap: refuse stops "
        f"instead"
    ),
    "rows_of_other_task": lambda split, other, of, count, rows: (
        f"{_rows(count, rows)} of {split} dropped, also in {other} of the task {of!r}. overlap: refuse, in "
        f"the task or in task.each, stops instead"
    ),
    # where the weights came from
    "folder_of_that_name": "{model} is the folder {folder}, not the model of that name",
    "from_the_cache": "{model} is read from the cache ({revision:.12}): {reason}",
    "from_a_package": _packaged,
    "fetched_whole": (
        "the hub does not answer requests for a part of {file} of {model}: this file is fetched whole, "
        "into the hub's cache, and no other"
    ),
    "head_kept": "the head of {model} has the task's labels and is kept",
    "head_drawn": "the head of {model} has other labels: a new one is drawn",
    "end_pads": "{model} has no pad token: {token!r} pads, and the attention mask tells",
    "random_weights": "the {model} backbone has random weights: good for tests and demos, not for results",
    # why a run is not exactly repeatable
    "config_changed": "config changed: {key}: {before} -> {now}",
    "environment_changed": "environment changed: {key}: {before} -> {now}",
    "checkpoint_damaged": _damaged,
    "checkpoint_set_aside": _set_aside,
    "lines_changed": (
        "{file} has changed since the checkpoint: {kept} of its lines can be read and stay, and what was "
        "there is kept as {aside}"
    ),
    # whether files are whole
    "no_manifest": (
        "{folder} has no manifest.json, as runs of older versions and adapters from elsewhere have none: "
        "whether its files are whole cannot be told"
    ),
    "out_of_time": (
        "training.max_seconds {seconds:g} ended it at step {step} of {steps}: run again, it may be another"
    ),
    "memory_ran_out": "out of memory: micro-batch {now} instead of {asked}",
    # what was in the place of a run
    "run_replaced": _replaced,
    # what a reader of scores has to know
    "one_class_predicted": (
        "all {examples} examples of {split} are predicted to be {label!r}, and there are {classes} classes: "
        "nothing was learnt that tells them apart. Try another training.learning_rate, more epochs, or "
        "task.class_weights: balanced"
    ),
    # what a run file says in vain
    "no_effect": _no_effect,
    # what a plan cannot know
    "no_weights": "{folder} holds no weights: a run of it would be refused",
    "size_unknown": "the size of {source} is not known: {reason}",
    "data_unread": "the data cannot be read here, and their sizes are not known: {reason}",
    # what is likely to go wrong, or to cost more than it has to
    "memory_short": _close_to_the_end,
    "no_gpu": "no GPU is found: the run computes on the CPU",
    "format_slow": (
        "{key}: this CPU has no instructions for {dtype}, and computes in it many times slower than in "
        "float32 (some 50 times, measured on one). Set {key} to {instead}."
    ),
    "gpu_shared": _shared_gpu,
    "workers_idle": "training.workers is {workers}, and there are {cores} cores",
    "compiled": "training.compile: the memory of a compiled model is another one, mostly less",
    "rate_lost": (
        "training.learning_rate {rate:g} is lost on weights around 1: float32 does not show steps below "
        "{least:.0e} of a weight. Set it above {least:.0e}."
    ),
    "rate_unseen": (
        "training.learning_rate {rate:g} with precision bf16: what a step changes is below what the "
        "forward pass can tell apart (2**-8 of a weight) for thousands of steps. Use fp32, or a higher rate."
    ),
    "rate_unusual": lambda rate, method, low, high: (
        f"training.learning_rate {rate:g} is {'above' if rate > high else 'below'} what the method {method} "
        f"usually trains with ({low:g} to {high:g})"
    ),
    "fp16_loses": "training.precision: fp16 loses small gradients, and steps while its scale is found",
    "length_idle": (
        "task.max_length is {allowed}, and the longest training example has {longest} tokens: a lower one "
        "changes nothing, and a batch is as wide as its longest"
    ),
    "examples_cut": _cut,
    "padding": (
        "training.group_by_length is off: {share:.0%} of what goes through the model is padding; with it "
        "{grouped:.0%}"
    ),
    "only_at_the_end": "training.{key} is {every}, and the run has {steps} steps: only its end is {done}",
    "long_warmup": "the learning rate rises for more than half of the run's {steps} steps",
    "texts_at_evaluations": (
        "{answers} answers are written at each of {evaluations} evaluations: up to {tokens} tokens in all, "
        "a forward pass each (task.generation.at_evaluations, max_new_tokens)"
    ),
    "few_steps": "the run has {steps} steps: too few to compare methods by",
    "peft_not_tried": "method.peft {given} could not be tried on a small model: {error}",
    "peft_no_effect": "method.peft.{field} has no effect in this run: a small model does the same without it",
    "peft_not_merged": "with method.peft {given} the adapter cannot be merged: {error}",
    "linear_left_out": (
        "method.targets all-linear leaves out {weights}: they are no linear layers, and {share:.0%} of the "
        "weights. method.peft: {{target_parameters: [...]}} adapts them by name"
    ),
    "part_of_an_epoch": "training.max_steps ends the run after {share:.0%} of an epoch",
    # what takes room in an adapter and need not
    "backbone_kept": (
        "{file} holds weights of the backbone ({bytes:,} bytes, {share:.0%}): the backbone has them"
    ),
    "embeddings_kept": (
        "{file} holds embeddings or the language head ({bytes:,} bytes, {share:.0%}): unless they were "
        "trained, the backbone has them"
    ),
    "float64_kept": "{file} holds float64 ({bytes:,} bytes, {share:.0%}): float32 is what trains",
    "pickle_unread": "{file} is a pickle that nothing here reads",
    # what a merged model does otherwise
    "inputs_made_up": "the run's data cannot be read, made-up inputs are compared: {reason}",
    "logits_not_finite": "the logits are not finite",
    "logits_differ": "logits differ by {largest:.3g}, more than {limit:.3g} for {dtype}",
    "outputs_diverge": "the divergence of the outputs is {kl:.3g}, more than {limit:g}",
    "weights_off": (
        "{count} weights are not the backbone's with the adapter's change, most of them in {name}: off by "
        "{difference:.3g}"
    ),
}
