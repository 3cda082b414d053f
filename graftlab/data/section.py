"""What every task says about its data: where the rows are, which columns matter, how they are split."""

import codecs
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from graftlab.config import Conflict, Section
from graftlab.data.expressions import PATTERN
from graftlab.data.labels import spelled
from graftlab.data.textfile import Given

SPLITS = ["train", "train[:80%]", "train[5000:]", "train+extra"]


class Hub(Section):
    """A data set of the Hugging Face hub, stored there as data files (no loading script)."""

    path: str
    """Its id, such as `nyu-mll/glue`."""
    name: str | None = None
    """The configuration, such as `sst2`, where the data set has several."""
    revision: str | None = None
    """Branch, tag or commit; pin a commit to be sure of the same rows."""
    train: str | None = Field("train", pattern=PATTERN, examples=SPLITS)
    """The split to train on, or parts of splits: `train[5000:]`, `train[:80%]`, `train+extra`; null where
    the data set is for evaluation alone."""
    validation: str | None = Field("validation", pattern=PATTERN, examples=SPLITS)
    """The split to choose by, if the data set has it, or parts; null for none."""
    test: str | None = Field("test", pattern=PATTERN, examples=SPLITS)
    """The split to report on, if the data set has it, or parts; null for none."""


class Files(Section):
    """Local files, one a split: .csv .tsv .json .jsonl .txt (each also .gz), .parquet, or an image folder."""

    train: Path
    """Rows to train on."""
    validation: Path | None = None
    """Rows to choose by; carved from train where there are none."""
    test: Path | None = None
    """Rows to report on."""


class DataSection(Section):
    """Fields that every task kind has. Kinds inherit them: a run file shows them flat, beside their own.

    Rows come from `data_dir` or `files` where given, else from `hub` or `source`.
    """

    name: str | None = None
    """A catalogue entry whose fields stand under the ones given here."""
    kind: str | None = None
    """The task kind; the catalogue entry says it otherwise."""
    data_dir: Path | None = None
    """A folder with train, validation and test as .jsonl.gz (or .jsonl, .csv, .parquet, ..., or folders
    of images)."""
    files: Files | None = None
    """Local files, one a split."""
    encoding: str | None = None
    """Encoding of the local files that are text, such as cp1252. Left out: found, and said where it is not
    UTF-8."""
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    """What parts the fields of local .csv and .tsv files. Left out: found among `,` `;` tab `|`, and said
    where it is not the usual one."""
    quoting: Literal["double", "none"] | None = None
    """Whether quotes in .csv and .tsv files hold a field together, or are text. Left out: they do, but in a
    table parted by tabs whose lines all have as many fields as the header in spite of open quotes."""
    hub: Hub | None = None
    """A data set of the hub."""
    source: str | None = Field(
        None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", examples=["my_package.rows:read"]
    )
    """`module:function` of an installed package; the function returns a dict: split -> rows (dicts)."""
    options: dict[str, object] = Field(default_factory=dict)
    """Arguments of the `source` function."""
    labels: tuple[str, ...] | dict[str, str] | None = None
    """Class names in the order of their integers, or a mapping: label in the data -> class name. Where a
    name is a number, labels are names alone. Left out, they are the sorted labels of local train rows."""
    drop_labels: tuple[str, ...] = ()
    """Rows with these labels (as in the data) are left out of every split, and counted."""
    metrics: tuple[str, ...] = ()
    """Names of metrics, or mappings of a `name` and its settings; the first one chooses the best checkpoint.
    Left out: what fits the problem."""
    overlap: Literal["drop", "refuse"] = "drop"
    """Drop a train row that stands in validation or test, and a validation row that stands in test; or
    stop and name the rows."""
    empty: Literal["drop", "refuse"] | None = None
    """Leave out rows with an empty text, or stop and name them. Left out: they are kept, and said."""
    duplicates: Literal["drop"] | None = None
    """Keep only the first of the rows of a split with the same input. Left out: all are kept, and said."""
    skip_bad: int = Field(0, ge=0)
    """So many unusable rows of a split are left out and recorded; one more stops the run."""
    test_share: float | None = Field(None, gt=0, lt=1)
    """Share of distinct train inputs that become test where there is none, each class in its share. Left out:
    a validation split becomes test, or there is none."""
    validation_share: float = Field(0.1, gt=0, lt=1)
    """Share of distinct train inputs that become validation where there is none, of those before test was
    carved."""
    validation_last: int | None = Field(None, ge=1)
    """So many of the last train rows become validation where there is none, instead of a share."""
    split_seed: int = 0
    """Seed of carving and sampling; not the run's seed, so that runs with other seeds see the same rows."""
    train_data_ratio: float = Field(1.0, gt=0, le=1)
    """Share of train rows that are kept, drawn at random: 0.5 is half. Applied before `max_train_samples`."""
    max_train_samples: int | None = Field(None, ge=1)
    """At most so many train rows, drawn at random."""
    max_validation_samples: int | None = Field(None, ge=1)
    """At most so many validation rows, drawn at random."""
    max_test_samples: int | None = Field(None, ge=1)
    """At most so many test rows, drawn at random."""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        try:
            return value and codecs.lookup(value).name
        except (LookupError, ValueError):
            raise ValueError(
                f"no encoding {value!r}; usual are utf-8, utf-16, cp1252, latin-1, cp1251, shift_jis"
            ) from None

    @field_validator("labels", "drop_labels", mode="before")
    @classmethod
    def _labels_are_text(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            return tuple(str(item) if isinstance(item, int) else item for item in value)
        return value

    @model_validator(mode="after")
    def _one_source(self) -> "DataSection":
        if self.data_dir and self.files:
            said = "data_dir and files are both given; keep one of them"
            raise Conflict("data_dir", said, other="files")
        if self.hub and self.source:
            said = "hub and source are both given; keep one of them"
            raise Conflict("hub", said, other="source")
        if not (self.data_dir or self.files or self.hub or self.source):
            raise Conflict(
                "data_dir", "no data: give one of data_dir, files, hub or source (or a name)"
            )
        if self.options and (not self.source or self.data_dir or self.files):
            raise Conflict(
                "options", "options are the arguments of source, but the rows come from elsewhere"
            )
        given = {key: getattr(self, key) for key in ("encoding", "delimiter", "quoting")}
        if any(given.values()) and not (self.data_dir or self.files):
            names = ", ".join(key for key, value in given.items() if value)
            raise ValueError(f"{names}: for local files, but the rows come from elsewhere")
        if (self.test_share or 0) + self.validation_share >= 1:
            raise ValueError("test_share and validation_share leave nothing to train on")
        self._check_labels()
        if self.labels is None and self.hub and not (self.data_dir or self.files):
            self._labels_unknown()
        return self

    @property
    def first_column(self) -> str:
        """The column that the lines of a .txt file are, of kinds that can use such a file."""
        return ""

    @property
    def given(self) -> Given:
        """What is said of how local text files are read."""
        return Given(self.encoding, self.delimiter, self.quoting)

    def _check_labels(self) -> None:
        """Refuse two classes of one label, `1` and `1.0`. `Raises:` Conflict."""
        labels = self.labels or ()
        known = dict[str, str]()
        for name in labels:
            other = known.setdefault(spelled(name), name)
            if isinstance(labels, dict) and labels[other] != labels[name]:
                said = f"labels: {other!r} and {name!r} are one label, and have two classes"
                raise Conflict("labels", said)
        if not isinstance(labels, dict) and len(known) < len(labels):
            raise Conflict("labels", "labels: a class name stands twice (1.0 is 1)")

    def _labels_unknown(self) -> None:
        """Kinds whose problem has no class names override this."""
        raise Conflict(
            "labels", "labels: the class names of a hub data set must be given, in their order"
        )
