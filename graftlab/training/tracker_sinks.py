"""TensorBoard, Weights & Biases and trackio: what each is told, and how it is opened. Each call may raise."""

import contextlib
import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from graftlab.config import Section

Name = Literal["tensorboard", "wandb", "trackio"]
PATIENCE_S = 30.0  # how long a finished run waits for its trackers, all together


class Config(Section):
    """Where a run is shown besides its directory."""

    to: tuple[Name, ...] = ()
    """Trackers to send to: `tensorboard`, `wandb`, `trackio`. Local files are written always."""
    project: str = "graftlab"
    """Project there (W&B, trackio)."""
    name: str | None = None
    """The run's name there (W&B, trackio); its directory's name unless given."""
    tags: tuple[str, ...] = ()
    """Tags of the run there; trackio, which has none, keeps them in the run's config."""
    offline: bool = False
    """W&B keeps the run in its directory, to be sent later with `wandb sync`."""


@dataclass(frozen=True)
class Start:
    """What trackers are told of a run when it begins."""

    folder: Path
    """The run directory."""
    config: Mapping[str, object]
    """The resolved run file."""
    model: str
    """The model's structure as text."""
    facts: Mapping[str, object]
    """`trainer_hash` (git commit of graftlab), `peft_hash`, the device and its memory."""
    first_step: int = 0
    """The step that the run goes on from; what was sent of later ones is replaced where possible."""


class Shown(NamedTuple):
    """A table with the pictures that go with it."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[float | str | None]]
    pictures: Sequence[Path]
    """PNG files, which stay where they are until the run ends."""

    def as_markdown(self) -> str:
        cells = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in cells)


def _cell(value: float | str | None) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


class Sink(Protocol):
    """One tracker, open. Each call may raise."""

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Take the scalars of a step."""

    def show(self, shown: "Shown") -> None:
        """Take a table and pictures, which belong to no step."""

    def close(self, result: dict[str, float]) -> None:
        """Take the run's final figures and end."""


class _TensorBoard:
    def __init__(self, start: Start, config: Config) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder, purge = str(start.folder / "tensorboard"), start.first_step + 1
        self.writer = SummaryWriter(folder, purge_step=purge)
        run_facts = {**start.facts, "tags": config.tags}
        for title, text in (
            ("config", json.dumps(start.config, indent=2, default=str)),
            ("facts", json.dumps(run_facts, indent=2, default=str)),
            ("model", start.model),
        ):
            code = "\n".join(f"    {line}" for line in text.splitlines())  # as Markdown has it
            self.writer.add_text(title, code, start.first_step)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)

    def show(self, shown: Shown) -> None:
        import numpy as np
        from PIL import Image

        self.writer.add_text(shown.name, shown.as_markdown())
        for path in shown.pictures:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self.writer.add_image(f"{shown.name}/{path.stem}", pixels, dataformats="HWC")

    def close(self, result: dict[str, float]) -> None:
        for name, value in result.items():
            self.writer.add_scalar(f"result/{name}", value)
        self.writer.close()


class _WandB:
    def __init__(self, start: Start, config: Config) -> None:
        import wandb

        offline = config.offline or wandb.setup().settings.mode != "online"  # WANDB_MODE
        if not offline and not wandb.login(prompt=False):  # asking would take over the terminal
            raise RuntimeError("there is no key for W&B")
        folder = start.folder / "wandb"
        folder.mkdir(exist_ok=True)
        kept = folder / "id.txt"  # a resumed run goes on where it was
        if not kept.exists():
            kept.write_text(secrets.token_hex(4), encoding="utf-8")
        self.run = wandb.init(
            project=config.project,
            name=config.name or start.folder.name,
            tags=config.tags,
            dir=start.folder,
            id=kept.read_text(encoding="utf-8"),
            resume=None if offline else "allow",
            mode="offline" if config.offline else None,
            config={**start.config, **start.facts},
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, finish_timeout=PATIENCE_S
            ),
        )
        self.run.summary["model"] = start.model

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self.run.log(scalars, step=step)

    def show(self, shown: Shown) -> None:
        import wandb

        rows = [list(row) for row in shown.rows]
        table = {shown.name: wandb.Table(columns=list(shown.columns), data=rows)}
        pictures = {f"{shown.name}/{path.stem}": wandb.Image(str(path)) for path in shown.pictures}
        self.run.log({**table, **pictures}, commit=False)  # with the next step

    def close(self, result: dict[str, float]) -> None:
        self.run.summary.update(result)
        self.run.finish()


class _Trackio:
    def __init__(self, start: Start, config: Config) -> None:
        import trackio

        with contextlib.redirect_stdout(sys.stderr):  # it prints; stdout is for the run's result
            self.run = trackio.init(
                project=config.project,
                name=config.name or start.folder.name,
                config={**start.config, **start.facts, "tags": config.tags, "model": start.model},
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self.run.log(scalars, step=step)

    def show(self, shown: Shown) -> None:
        import trackio

        rows = [list(row) for row in shown.rows]
        table = {shown.name: trackio.Table(columns=list(shown.columns), data=rows)}
        pictures = {
            f"{shown.name}/{path.stem}": trackio.Image(str(path)) for path in shown.pictures
        }
        with contextlib.redirect_stdout(sys.stderr):
            self.run.log({**table, **pictures})

    def close(self, result: dict[str, float]) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self.run.log({f"result/{name}": value for name, value in result.items()})
            self.run.finish()


OPENERS: dict[Name, Callable[[Start, Config], Sink]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "trackio": _Trackio,
}
REMEDIES: dict[Name, str] = {
    "tensorboard": "See whether the run directory can be written.",
    "wandb": "Set WANDB_API_KEY or run `wandb login`, or set tracking.offline: true.",
    "trackio": "See whether the folder TRACKIO_DIR can be written.",
}
