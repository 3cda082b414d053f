"""Classes of images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import model_validator

from graftlab.config import Conflict, Paths, Section
from graftlab.contracts import USUAL_METRICS, Backbone, Batch, Data, Problem, Row, inputs_of
from graftlab.data import inputs, pictures, readers
from graftlab.data.labels import Unusable
from graftlab.data.load import Form, check_local, read_splits, task_labels
from graftlab.data.rows import Numbered
from graftlab.errors import ConfigError, DataError, Fault
from graftlab.seeds import mix
from graftlab.tasks._class_weights import WeightedClasses, weighted, weights
from graftlab.tasks._outputs import forward, label_array, losses, predictions

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

BACKBONES = ("vision", "tiny")
CACHE_BYTES = (
    256 * 2**20
)  # of a split's tensors: all of MNIST's test set at 28 x 28, none of a ViT's
CROP_MARGIN = 8  # a random crop moves by up to 1/8 of the side: the 4 pixels of 32 usual for CIFAR


class Columns(Section):
    """Which columns of the data are what."""

    image: str = "image"
    """The image: encoded bytes, raw pixels with a shape, or a file."""
    label: str = "label"
    """The class (an integer or a name)."""


class Config(WeightedClasses):
    """Classification of images."""

    columns: Columns = Columns()
    """Which columns of the data are what. An image folder has its own: the file, and its folder's name."""
    augment: tuple[Literal["flip", "crop"], ...] = ()
    """What is done to train images at random: mirrored left to right, moved by up to an eighth."""

    @model_validator(mode="after")
    def _no_texts(self) -> "Config":
        if self.empty is not None:
            raise Conflict("empty", "empty is about texts; rows of images have none")
        return self


def example(folder: Path) -> Config:
    """Return a section that reads drawn images, written into `folder`: for `graftlab.testing`."""
    from PIL import Image

    for number, (split, count) in enumerate({"train": 9, "validation": 3, "test": 3}.items()):
        for i in range(count):
            place = folder / split / ("dark", "light")[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            image = Image.linear_gradient("L").resize((8, 8)).rotate(90 * (i % 4))
            image.paste(25 * i + number, (2, 4, 5, 6))
            image.save(place / f"{i}.png")
    return Config(data_dir=folder, augment=("flip", "crop"))


def problem(config: Config) -> Problem:
    """Return what the model has to put out. `Raises:` DataError: the train labels cannot be read."""
    return Problem("classes", task_labels(config, config.columns.label))


def check(config: Config) -> list[Fault]:
    """Return what is wrong with local files and columns; nothing is imported or downloaded."""
    return check_local(config, [config.columns.image], config.columns.label)


def read(config: Config, paths: Paths, seed: int) -> Data:
    """Return the task's rows: `index`, `image` (bytes, a file or pixels) and `label`.

    `seed` changes nothing here; see `split_seed`.

    Raises:
        ConfigError, DataError, Refused
    """
    form = Form((config.columns.image,), config.columns.label, _parser(config))
    return read_splits(config, paths, form)


def _parser(config: Config) -> Callable[[Mapping[str, object]], dict[str, object]]:
    column = config.columns.image
    # Files that a table names lie beside the table.
    root = config.data_dir or (config.files.train.parent if config.files else Path())

    def parse(row: Mapping[str, object]) -> dict[str, object]:
        picture = pictures.find(row[column], root)
        pictures.check(picture)
        return {"image": picture, "key": pictures.content(picture)}

    return parse


def read_inputs(config: Config, source: str | Path | Sequence[object]) -> list[Row]:
    """Return new images as rows without labels: an image file, a folder of images (with or without class
    folders), a file with the task's columns, or a list of any such cells.

    Raises:
        DataError: a row cannot be used, or a column is missing.
    """
    column = config.columns.image
    given = _inputs(column, source)

    def parse(row: Mapping[str, object]) -> dict[str, object]:
        picture = pictures.find(row[column], given.root)
        pictures.check(picture)
        return {"image": picture}

    return inputs.read(given.where, given.rows, parse, [column], given.files)


class _Given(NamedTuple):
    """New images: what messages call their source, the rows, and where the files lie that a table names."""

    where: str
    rows: Iterable[Numbered]
    root: Path = Path()
    files: Mapping[int, str] = MappingProxyType({})


def _inputs(column: str, source: str | Path | Sequence[Any]) -> _Given:
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            found = (f for f in path.rglob("*") if f.suffix.lower() in readers.IMAGES)
            files = sorted(f for f in found if not readers.is_system(f.relative_to(path)))
        elif path.suffix.lower() in readers.IMAGES:
            files = [path]
        else:
            return _Given(str(path), readers.read(path), path.parent)
        named = {index: str(file) for index, file in enumerate(files)}
        return _Given(str(path), ((i, {column: file}) for i, file in named.items()), files=named)
    cells: list[dict[str, object] | str] = [
        dict(item) if isinstance(item, Mapping) and column in item else {column: item}
        for item in source
    ]
    return _Given("input", enumerate(cells))


def bind(data: Data, backbone: Backbone, config: Config, seed: int) -> "ImageTask":
    """Return the task with its images as the backbone's processor makes them.

    Raises:
        ConfigError: the backbone reads text.
    """
    if backbone.max_length is not None:
        raise ConfigError("this task has images, but the backbone reads text.")
    return ImageTask(data, backbone.processor, config, seed)


class ImageTask:
    """Images as batches of pixels, with cross-entropy."""

    def __init__(self, data: Data, processor: Any, config: Config, seed: int) -> None:
        self.problem = data.problem
        self.class_weights = weights(config.class_weights, data)
        self.metrics = config.metrics or USUAL_METRICS["classes"]
        self.record: Mapping[str, object] = {}
        self._rows = data.splits
        self._labels = {
            split: label_array(rows, data.problem) for split, rows in data.splits.items()
        }
        self._processor = processor
        grey = len(getattr(processor, "image_mean", None) or (0, 0, 0)) == 1
        self._mode = "L" if grey else "RGB"
        self._augment = config.augment
        self._seed = seed
        self._kept: dict[tuple[str, int], Tensor] = {}

    def size(self, split: str) -> int:
        return len(self._labels.get(split, ()))

    def lengths(self, split: str) -> Sequence[int]:
        return [1] * self.size(split)

    def batch(self, split: str, indices: Sequence[int], epoch: int | None) -> Batch:
        import torch

        labels = torch.from_numpy(self._labels[split][list(indices)])
        if self._augment and epoch is not None:
            images = [self._decode(split, i, epoch) for i in indices]
            return {"pixel_values": self._process(images), "labels": labels}
        missing = [i for i in dict.fromkeys(indices) if (split, i) not in self._kept]
        fresh: dict[int, Tensor] = {}
        if missing:
            pixels = self._process([self._decode(split, i, None) for i in missing])
            fresh = dict(zip(missing, pixels, strict=True))
            if len(self._kept) * pixels[0].nbytes < CACHE_BYTES:
                self._kept |= {(split, i): image.clone() for i, image in fresh.items()}
        chosen = [fresh[i] if i in fresh else self._kept[split, i] for i in indices]
        return {"pixel_values": torch.stack(chosen), "labels": labels}

    def _process(self, images: "list[Image]") -> "Tensor":
        return self._processor(images=images, return_tensors="pt")["pixel_values"]

    def _decode(self, split: str, index: int, epoch: int | None) -> "Image":
        row = self._rows[split][index]
        try:
            image = pictures.decode(row["image"]).convert(self._mode)
        except Unusable as reason:
            file = row["image"] if isinstance(row["image"], Path) else None
            where = file or f"{split} row {row['index'] + 1}"
            raise DataError(f"{where}: {reason}. Take it out of the data.") from None
        return image if epoch is None else augment(image, self._augment, (self._seed, epoch, index))

    def inputs(self, split: str, index: int) -> dict[str, object]:
        return inputs_of(self._rows[split][index])

    def source_row(self, split: str, index: int) -> int:
        return int(self._rows[split][index]["index"])

    def count(self, batch: Batch) -> int:
        return len(batch["labels"])

    def loss(self, model: "nn.Module", batch: Batch, label_smoothing: float = 0.0) -> "Tensor":
        logits, labels = forward(model, batch)
        found = losses(self.problem, logits, labels, label_smoothing)
        if self.class_weights is not None:
            found = weighted(found, labels, self.class_weights)
        return found.sum()

    def predict(self, model: "nn.Module", batch: Batch) -> list[dict[str, object]]:
        logits, labels = forward(model, batch)
        return predictions(self.problem, logits, labels)


def augment(image: "Image", how: Sequence[str], draw: tuple[int, int, int]) -> "Image":
    """Return the image mirrored and moved as drawn from (seed, epoch, index); edges are filled black."""
    import numpy as np
    from PIL import ImageOps

    generator = np.random.default_rng(mix(*draw, "augment"))
    if "flip" in how and generator.random() < 0.5:
        image = ImageOps.mirror(image)
    if "crop" in how:
        width, height = image.size
        across, down = -(-width // CROP_MARGIN), -(-height // CROP_MARGIN)
        left, top = generator.integers(-across, across + 1), generator.integers(-down, down + 1)
        image = image.crop((int(left), int(top), int(left) + width, int(top) + height))
    return image
