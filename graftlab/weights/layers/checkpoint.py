"""A decoder's checkpoint, opened without reading its weights: layers and embedding rows on demand."""

from typing import TYPE_CHECKING

from graftlab.contracts import Note
from graftlab.errors import ModelError
from graftlab.seeds import mix
from graftlab.weights.layers.source import UNQUANTIZED, Source
from graftlab.weights.layers.tensors import FLOATS, Entry, Table, hash_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from graftlab.weights.layers.layer import Layer

# Families where one token alone gives the same without queries and keys: a test proves it of each.
# Not those with attention sinks (gpt-oss) or fused query-key-value matrices (GPT-2, Falcon, Phi-3).
# fmt: off
POOLED = frozenset({
    "cohere", "gemma", "gemma2", "gemma3_text", "gpt_neo", "gptj", "granite", "llama", "mistral",
    "olmo", "olmo2", "opt", "phi", "qwen2", "qwen3", "smollm3", "stablelm", "starcoder2",
})
# fmt: on


class Checkpoint:
    """A decoder's checkpoint. Make it with `open`; `config` is transformers'."""

    def __init__(self, source: Source, config: "PreTrainedConfig") -> None:
        from graftlab.weights.layers import anatomy

        self._source, self.config = source, config
        self._skeleton = anatomy.build(self.config, source.name)
        self._table = Table(source)
        self._prefix = self._find_prefix()
        self._fronts: dict[str, PreTrainedModel] = {}
        self._fetched: dict[int, Tensor] = {}  # rows that came over the network, for the next batch

    @property
    def source(self) -> str:
        """The folder, or the hub id."""
        return self._source.name

    @property
    def revision(self) -> str:
        """The commit on the hub; of a folder, sha256 over the index or the single file's header."""
        return self._source.revision

    @property
    def family(self) -> str:
        """The architecture's name in transformers, such as `llama`."""
        return str(self.config.model_type)

    @property
    def num_layers(self) -> int:
        return len(self._skeleton.layers)

    @property
    def hidden_size(self) -> int:
        return int(self.config.hidden_size)

    @property
    def bytes_read(self) -> int:
        """Bytes read so far: config, index, headers and tensors."""
        return self._source.bytes_read

    @property
    def remote(self) -> bool:
        """Whether the weights come over the network."""
        return self._source.remote

    @property
    def notes(self) -> list[Note]:
        """What the user has to know of how it was read."""
        return self._source.notes

    def layer_bytes(self, index: int, pooled: bool = False) -> int:
        """Return the size in bytes of the tensors that `load_layer` reads."""
        index = self._checked(index)
        names = self._names(index, self._block(index, pooled))
        return sum(self._table.entry(name).num_bytes for name in names.values())

    def load_layer(self, index: int, *, dtype: str = "float32", pooled: bool = False) -> "Layer":
        """Return layer `index` (-1 for the last), frozen, in `dtype`; only its tensors are read.

        With `pooled` the query and key matrices are left unread where a test proves that one token
        alone gives the same without them (`POOLED`); `record["pooled"]` says whether they were.

        Raises:
            ModelError: there is no such layer, it is no attention, or its tensors are missing,
                damaged, of another shape than config.json says, or quantized.
        """
        from graftlab.weights.layers import anatomy, expert_stacks
        from graftlab.weights.layers.layer import Layer

        index = self._checked(index)
        block = self._block(index, pooled)
        names = self._names(index, block)
        stored = self._table.read(names, _dtype(dtype), keep=True)
        if stored.tensors.keys() == block.state_dict().keys():
            block.load_state_dict(stored.tensors, assign=True)
        else:
            expert_stacks.fill(self._skeleton, index, block, stored.tensors, self.source)
        anatomy.compute_buffers(self._skeleton.model, block)
        record = {
            "source": self.source,
            "revision": self.revision,
            "index": index,
            "dtype": dtype,
            "sha256": stored.sha256,
            "pooled": pooled and self.family in POOLED,
        }
        return Layer(block, anatomy.shell(self._skeleton, index), record)

    def random_layer(
        self, index: int, *, seed: int, dtype: str = "float32", pooled: bool = False
    ) -> "Layer":
        """Return layer `index` with weights drawn anew: a control for what the donor has learned.

        Each tensor has the shape and the Frobenius norm of the donor's; weights of norms are the
        donor's own. Draws depend on the seed and the tensor's name.

        Raises:
            ModelError: as `load_layer`, which reads the norms.
        """
        import torch

        layer = self.load_layer(index, dtype=dtype, pooled=pooled)
        for name, parameter in layer.block.named_parameters():
            owner = type(layer.block.get_submodule(name.rpartition(".")[0])).__name__
            if "norm" not in owner.lower():
                generator = torch.Generator().manual_seed(mix(seed, "random layer", name))
                drawn = torch.randn(parameter.shape, generator=generator)
                drawn *= _norm(parameter) / _norm(drawn)
                parameter.copy_(drawn)
        layer.record |= {"random": seed, "sha256": hash_of(layer.block.state_dict())}
        return layer

    def embed(
        self,
        input_ids: "Tensor",
        *,
        attention_mask: "Tensor | None" = None,
        dtype: str = "float32",
    ) -> "Tensor":
        """Return the (B, T, d) hidden states before layer 0 for (B, T) token ids.

        Token embeddings with all that the family does to them: scaling (Gemma), learned positions
        (GPT-2; OPT counts them from `attention_mask`), norms (Bloom). Of the token embedding only the
        rows needed are read; learned positions are read whole, once.
        """
        import torch

        from graftlab.weights.layers import anatomy

        if dtype not in self._fronts:
            self._fronts[dtype] = self._front(dtype)
        front = self._fronts[dtype]
        unique, places = input_ids.cpu().unique(return_inverse=True)
        embedding = front.get_input_embeddings()
        embedding.weight.data = self.embedding_rows(unique).to(_dtype(dtype))
        with torch.no_grad():
            mask = None if attention_mask is None else attention_mask.cpu()
            hidden = anatomy.call(front, embedding(places), mask).hidden
        embedding.weight.data = embedding.weight.data[:0]
        return hidden.to(input_ids.device)

    def _front(self, dtype: str) -> "PreTrainedModel":
        """Return what stands before layer 0, its weights read but for the token embedding's."""
        from graftlab.weights.layers import anatomy

        front = anatomy.front(self._skeleton)
        shapes = {k: tuple(v.shape) for k, v in front.state_dict().items() if v.is_meta}
        names = {name: self._outer(name) for name in shapes}
        for name, shape in shapes.items():
            _check(self._table.entry(names[name]), shape, self.source)
        stored = self._table.read(names, _dtype(dtype), keep=True)
        front.load_state_dict(stored.tensors, assign=True, strict=False)
        return front.requires_grad_(False)

    def embedding_rows(self, ids: "Tensor") -> "Tensor":
        """Return (N, d) rows of the token embedding for (N,) ids, as stored; only those are read.

        Over the network each is fetched once, and stays in memory.
        """
        import torch

        if not ids.numel():
            return torch.empty(0, self.hidden_size)
        unique, places = ids.cpu().unique(return_inverse=True)
        name = self._embedding()
        rows, _ = self._table.entry(name).shape
        if unique[0] < 0 or unique[-1] >= rows:
            raise ModelError(
                f"{self.source} embeds tokens 0 to {rows - 1}, but was asked for "
                f"{int(unique[-1] if unique[-1] >= rows else unique[0])}: is the tokenizer another model's?"
            )
        numbers = unique.tolist()
        if not self.remote:
            return self._table.rows(name, numbers)[places]
        if new := [number for number in numbers if number not in self._fetched]:
            self._fetched |= dict(zip(new, self._table.rows(name, new), strict=True))
        return torch.stack([self._fetched[number] for number in numbers])[places]

    def _embedding(self) -> str:
        model = self._skeleton.model
        embedding = model.get_input_embeddings()
        name = next(name for name, module in model.named_modules() if module is embedding)
        return self._outer(f"{name}.weight")

    def _outer(self, name: str) -> str:
        """Return the checkpoint's name for a tensor outside the layers."""
        parent = self._skeleton.path.rpartition(".")[0]
        return f"{self._prefix}{parent + '.' if parent else ''}{name}"

    def _checked(self, index: int) -> int:
        if not -self.num_layers <= index < self.num_layers:
            raise ModelError(
                f"{self.source} has no layer {index}: it has layers 0 to {self.num_layers - 1} "
                f"(-1 is the last).",
                kind="out_of_range",
            )
        return index % self.num_layers

    def _block(self, index: int, pooled: bool) -> "nn.Module":
        from graftlab.weights.layers import anatomy

        anatomy.refuse_without_attention(self._skeleton, index, self.source)
        return anatomy.block(self._skeleton, index, pooled and self.family in POOLED)

    def _names(self, index: int, block: "nn.Module") -> dict[str, str]:
        """Return the checkpoint's name of each of a layer's tensors, all of them there and fitting."""
        from graftlab.weights.layers import expert_stacks

        before = f"{self._prefix}{self._skeleton.path}.{index}."
        wanted = block.state_dict()
        names = {name: before + name for name in wanted}
        lost = sorted(stored for stored in names.values() if stored not in self._table.file_of)
        stored = [name for name in self._table.file_of if name.startswith(before)]
        if lost and stored and expert_stacks.applies(self._skeleton):
            names = {name.removeprefix(before): name for name in stored}
        elif lost:
            raise ModelError(
                f"layer {index} of {self.source} is not whole: {len(lost)} of its {len(names)} tensors "
                f"are missing, {lost[0]} first.",
                kind="incomplete",
            )
        for name in names:
            shape = tuple(wanted[name].shape) if name in wanted else None
            _check(self._table.entry(names[name]), shape, self.source)
        return names

    def _find_prefix(self) -> str:
        """Return what stands before the layers' names in this checkpoint: ``, `model.`, ..."""
        place = f"{self._skeleton.path}.0."
        suffixes = set(self._skeleton.layers[0].state_dict())
        found: dict[str, int] = {}
        for name in self._table.file_of:
            before, middle, after = name.partition(place)
            if middle and (not before or before.endswith(".")):
                found[before] = found.get(before, 0) + (after in suffixes)
        if not found:
            raise ModelError(
                f"{self.source} has no tensors of layers ({place}...): its checkpoint holds "
                f"{len(self._table.file_of)} other tensors. Give the folder or hub id of the whole model.",
                kind="no_layers",
            )
        return max(found, key=lambda prefix: found[prefix])


def _check(entry: Entry, shape: tuple[int, ...] | None, source: str) -> None:
    if entry.dtype not in FLOATS:
        raise ModelError(
            f"{source} is quantized: {entry.name} is stored as {entry.dtype}. {UNQUANTIZED}",
            kind="quantized",
        )
    if shape is not None and entry.shape != shape:
        raise ModelError(
            f"{source}: {entry.name} is {list(entry.shape)} in {entry.file}, but {list(shape)} by "
            f"config.json: they are not of one model."
        )


def _dtype(name: str) -> "torch.dtype":
    import torch

    if name not in FLOATS.values():
        raise ModelError(f"dtype {name!r} is not one of {', '.join(sorted(FLOATS.values()))}")
    return getattr(torch, name)


def _norm(tensor: "Tensor") -> float:
    """Return the Frobenius norm, summed in float64: float32 is off by 1e-4 in tensors of large layers."""
    import torch

    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
