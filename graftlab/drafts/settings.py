"""Keys of another program as keys of a run file, by the table that unknown keys are answered from."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from graftlab.config.foreign import ABSENT, FOREIGN
from graftlab.config.readings import NOTHING
from graftlab.drafts.draft import Left

OFF = (None, False, "", "no", "none", "None", 0, -1)
"""Values that ask for nothing."""
USUAL: dict[str, object] = {  # what a Trainer does anyway
    "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "bias": "none",
}  # fmt: skip
NAMES = """
_n_gpu accelerator_config average_tokens_across_devices data_seed dataloader_persistent_workers auto_mapping
dataloader_pin_memory dataset_prepared_path dataset_processes ddp_backend ddp_bucket_cap_mb ddp_timeout
disable_tqdm do_eval do_predict do_train eval_batch_size eval_do_concat_batches eval_sample_packing
hub_strategy inference_mode label_names local_rank log_level log_level_replica log_on_each_node logging_dir
logging_first_step logging_nan_inf_filter logging_strategy model_type overwrite_cache overwrite_output_dir
pad_to_sequence_len peft_version per_device_eval_batch_size per_gpu_eval_batch_size plot_loss
prediction_loss_only preprocessing_num_workers project ray_scope remove_unused_columns save_only_model
restore_callback_states_from_checkpoint save_safetensors skip_memory_metrics strict tf32 tokenizer_type
tokenizer_use_fast trackio_space_id use_cache
"""
IDLE = frozenset(NAMES.split())
"""Keys of theirs that change neither what is trained nor what is kept."""
WHY = {
    **ABSENT,
    "chat_template": "the tokenizer's own is taken; another one: task.chat_template_file",
}


class Converted(NamedTuple):
    values: dict[str, Any]
    left: tuple[Left, ...]


def convert(given: Mapping[str, object], handled: Collection[str] = ()) -> Converted:
    """Return what flat settings are here. Keys that are `handled` elsewhere are passed over."""
    values: dict[str, Any] = {}
    left: list[Left] = []
    for key, value in given.items():
        if key in handled or value is None or value == "" or value in ([], {}):
            continue
        if key in IDLE or USUAL.get(key, NOTHING) == value:
            continue
        ours = FOREIGN.get(key)
        if ours is None or ours.read is None:
            asks = value not in OFF if not isinstance(value, list | dict) else True
            hint = f"here {ours.key}: {ours.write}" if ours and ours.write else WHY.get(key, "")
            left += [Left(key, value, hint)] if asks else []
            continue
        try:
            read = ours.read(value)
        except ValueError as error:
            left.append(Left(key, value, f"{ours.key}: {error}"))
            continue
        if read is not NOTHING:
            put(values, ours.key, read)
    return Converted(values, tuple(left))


def put(values: dict[str, Any], dotted: str, value: object) -> None:
    """Set a key, making the sections around it."""
    *sections, last = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value


def batch(given: Mapping[str, object], micro: str, usual: int) -> dict[str, Any]:
    """Return the batch of a step on one GPU, out of a micro-batch and how many of them are added up."""
    one, times = given.get(micro) or usual, given.get("gradient_accumulation_steps") or 1
    if not isinstance(one, int) or not isinstance(
        times, int
    ):  # `auto`, as DeepSpeed's files have it
        return {}
    return {"batch_size": one * times, **({"micro_batch_size": one} if times > 1 else {})}
