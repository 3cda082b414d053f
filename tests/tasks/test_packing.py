"""Examples in one row of tokens: which row they go into, and that none sees another."""

import itertools
import json

import numpy as np
import pytest
import torch
from faults import fault
from transformers import AutoConfig, AutoModelForCausalLM

from graftlab import config, runfile
from graftlab.errors import ConfigError
from graftlab.tasks import _packing
from graftlab.tasks._packing import Example, collate, inputs, isolation, pack

CAP = 16  # the models' positions: a row of all examples is longer
WINDOW = 4  # tokens, of models with a sliding window: shorter than an example
TOKENS = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {
    **TOKENS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CAP,
}
WINDOWED = {**LLAMA, "sliding_window": WINDOW}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GPT = {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CAP}
FALCON = {**TOKENS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
OPT = {**FALCON, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": CAP}

FAMILIES = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "qwen3_moe": {**LLAMA, **EXPERTS},
    "mistral": WINDOWED,
    "mixtral": {**LLAMA, "num_local_experts": 4},
    "gemma": LLAMA,
    "gemma2": WINDOWED,
    "gemma3_text": WINDOWED,
    "phi": LLAMA,
    "phi3": WINDOWED,
    "olmo2": LLAMA,
    "starcoder2": WINDOWED,
    "stablelm": LLAMA,
    "smollm3": LLAMA,
    "granite": LLAMA,
    "cohere": LLAMA,
    "gpt2": GPT,
    "gptj": {**GPT, "rotary_dim": 4},
    "gpt_bigcode": GPT,
    "gpt_neox": LLAMA,
    "falcon": FALCON,
    "opt": OPT,
}
BY_MASK = ("falcon", "opt")
ONLY_EAGER = ("gemma2", "gptj")
MIXTURES = ("mixtral", "qwen3_moe")
KERNELS = [
    (name, kernel)
    for name in FAMILIES
    for kernel in ("eager", "sdpa")
    if kernel == "eager" or name not in ONLY_EAGER
]
LENGTHS = (12, 9, 7, 5)


def build(model_type, kernel, fields):
    made = AutoConfig.for_model(model_type, **fields)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(made, attn_implementation=kernel).eval()
    for weight in model.parameters():
        if weight.dim() > 1:  # attention that is far from even, so that whatever it sees counts
            torch.nn.init.normal_(weight, std=0.2)
    return model


def examples(seed=0, lengths=LENGTHS):
    drawn = np.random.default_rng(seed)
    return [Example(ids, ids) for ids in (drawn.integers(3, 64, n) for n in lengths)]


def batch_of(chosen, max_length):
    return {name: torch.from_numpy(a) for name, a in collate(chosen, max_length, 0).items()}


@torch.no_grad()
def logits_of_each(model, how, chosen, max_length):
    """Return the logits of each example, found in its row by its tokens."""
    batch = batch_of(chosen, max_length)
    logits = model(**inputs(batch, model, how)).logits
    rows = batch["input_ids"].numpy()
    found = []
    for example in chosen:
        n = len(example.ids)
        places = itertools.product(range(len(rows)), range(rows.shape[1] - n + 1))
        r, c = next((r, c) for r, c in places if (rows[r, c : c + n] == example.ids).all())
        found.append(logits[r, c : c + n])
    return found


@pytest.mark.quick("llama-*", "mixtral-eager")
@pytest.mark.parametrize(("name", "kernel"), KERNELS)
def test_changing_one_example_changes_no_other_s_logits(name, kernel):
    model = build(name, kernel, FAMILIES[name])
    how = isolation(model)
    assert how == ("mask" if name in BY_MASK else "positions")
    chosen, other = examples(), examples(seed=1)
    # Tokens of a mixture share an expert's matrix product with whichever others go there: rounding.
    allowed = 1e-5 if name in MIXTURES else 0.0
    for max_length in (CAP, None):
        before = logits_of_each(model, how, chosen, max_length)
        for i in (0, 2):
            changed = [*chosen[:i], other[i], *chosen[i + 1 :]]
            after = logits_of_each(model, how, changed, max_length)
            for j in {*range(len(chosen))} - {i}:
                torch.testing.assert_close(after[j], before[j], rtol=0, atol=allowed)
            assert not torch.allclose(after[i], before[i])


@pytest.mark.quick("llama-*", "mixtral-eager")
@pytest.mark.parametrize(("name", "kernel"), KERNELS)
def test_an_example_has_the_logits_that_it_has_alone(name, kernel):
    model = build(name, kernel, FAMILIES[name])
    how = "mask" if name in BY_MASK else "positions"
    chosen = examples()
    with torch.no_grad():
        alone = [model(input_ids=torch.from_numpy(e.ids)[None]).logits[0] for e in chosen]
    for max_length in (CAP, None):
        for packed, single in zip(
            logits_of_each(model, how, chosen, max_length), alone, strict=True
        ):
            torch.testing.assert_close(packed, single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_an_adapter_around_the_model_changes_nothing_of_this(kernel):
    from peft import LoraConfig, get_peft_model

    model = build("opt", kernel, OPT)
    chosen = examples()
    expected = logits_of_each(model, "mask", chosen, None)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    torch.testing.assert_close(logits_of_each(adapted, "mask", chosen, None), expected)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("bloom", {**TOKENS, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
        ("mpt", {**TOKENS, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": CAP}),
        ("falcon", {**FALCON, "alibi": True}),
        ("gpt_oss", {**WINDOWED, "num_local_experts": 4, "num_experts_per_tok": 2}),
        ("mamba", {**TOKENS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
        ("gpt_neo", {**TOKENS, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
         | {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": CAP}),
    ],
)  # fmt: skip
def test_a_model_that_cannot_keep_examples_apart_is_refused(name, fields):
    with pytest.raises(ConfigError, check=fault("conflict", "task.packing"), match=name):
        isolation(build(name, "eager", fields))


def test_a_kernel_that_was_not_tried_is_refused():
    model = build("llama", "eager", LLAMA)
    model.set_attn_implementation("flex_attention")
    with pytest.raises(ConfigError, match="flex_attention"):
        isolation(model)


def test_trying_leaves_the_model_as_it_was():
    model = build("llama", "sdpa", LLAMA).train()
    state = torch.get_rng_state()
    isolation(model)
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())
    assert not model.get_input_embeddings()._forward_hooks
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_and_its_rounding_are_not_taken_for_a_leak():
    assert isolation(build("llama", "sdpa", LLAMA).bfloat16()) == "positions"
    assert isolation(build("opt", "eager", OPT).bfloat16()) == "mask"


@pytest.mark.parametrize("max_length", [CAP, None])
def test_loss_and_gradient_are_those_of_padded_rows(max_length):
    model = build("llama", "sdpa", LLAMA)
    chosen = examples()

    def gradient(given, labels):
        model.zero_grad()
        logits = model(**given).logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
        loss.backward()
        return loss.detach(), torch.cat([w.grad.flatten() for w in model.parameters()])

    batch = batch_of(chosen, max_length)
    packed = gradient(inputs(batch, model, "positions"), batch["labels"])
    rows = [torch.from_numpy(e.ids) for e in chosen]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    padded = gradient({"input_ids": ids, "attention_mask": (labels >= 0).long()}, labels)
    torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4)


def test_the_longest_go_first_each_into_the_fullest_row_with_room():
    assert pack([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert pack([3, 7, 4, 6], 10) == [[0, 1], [2, 3]]  # first fit would do; next fit would not
    assert pack([5, 2, 8], 10) == [[0], [1, 2]]  # best fit: into the row with two left, not five
    assert pack([], 10) == []


def test_every_example_is_packed_once_and_no_row_is_too_long():
    drawn = np.random.default_rng(0)
    for _ in range(50):
        lengths = drawn.integers(1, 101, drawn.integers(1, 60)).tolist()
        rows = pack(lengths, 100)
        assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
        totals = [sum(lengths[i] for i in row) for row in rows]
        assert max(totals) <= 100
        assert all(a + b > 100 for a, b in itertools.combinations(totals, 2))


def test_a_packed_batch_is_what_one_would_write_by_hand():
    no = _packing.UNKNOWN
    chosen = [
        Example([11, 12, 13], [11, 12, 13]),
        Example([21, 22, 23, 24], [no, no, 23, 24]),
        Example([31, 32], [no, 32]),
    ]
    found = {name: array.tolist() for name, array in collate(chosen, 6, 0).items()}
    assert found == {
        "input_ids": [[11, 12, 13, 0, 0, 0], [21, 22, 23, 24, 31, 32]],
        "position_ids": [[0, 1, 2, 0, 0, 0], [0, 1, 2, 3, 0, 1]],
        # 11 is no label: were it one, it would be told from the last token of another example
        "labels": [[no, 12, 13, no, no, no], [no, no, 23, 24, no, 32]],
    }
    found = {name: array.tolist() for name, array in collate(chosen, None, 0).items()}
    assert found == {
        "input_ids": [[11, 12, 13, 21, 22, 23, 24, 31, 32]],
        "position_ids": [[0, 1, 2, 0, 1, 2, 3, 0, 1]],
        "labels": [[no, 12, 13, no, no, 23, 24, no, 32]],
    }


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_a_method_with_virtual_tokens_is_refused_before_anything_is_loaded(method, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"question": "?", "answer": "!"}\n', encoding="utf-8")
    task = {"kind": "generation", "template": "question_answer", "data_dir": str(tmp_path)}
    whole = {"kind": "mixture", "tasks": [task, {**task, "as": "b", "packing": "packed"}]}
    for section in ({**task, "packing": "padding_free"}, whole):
        written = {"backbone": {"kind": "decoder", "model": str(tmp_path)}, "task": section}
        path = tmp_path / "run.yaml"
        path.write_text(json.dumps({**written, "method": {"name": method}}), encoding="utf-8")
        with pytest.raises(ConfigError, match=f"the method '{method}' puts virtual tokens"):
            runfile.resolve(config.read(path))
