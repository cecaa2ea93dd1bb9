"""A run for TensorBoard, by torch's SummaryWriter: scalars of each epoch; pictures and hyperparameters at the end."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

TRAINING_COLUMNS = ("lr", "train_loss")  # columns of history.csv; all others are of validation
KEPT_SCORES = ("macro_f1", "accuracy", "val_loss")  # scores beside the settings of a run


@contextlib.contextmanager
def opened(folder: pathlib.Path, history: list[dict]) -> Iterator[SummaryWriter]:
    """A writer of a new log that has the epochs of `history`.

    An older log there is deleted: else a run that goes on would show its epochs twice.
    """
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(folder) as writer:
        for row in history:
            add_epoch(writer, row)
        yield writer


def add_epoch(writer: SummaryWriter, row: dict) -> None:
    """The scalars of a row of history.csv."""
    for name, value in row.items():
        if name != "epoch":
            side = "training" if name in TRAINING_COLUMNS else "validation"
            writer.add_scalar(f"{side}/{name}", value, row["epoch"])
    writer.flush()


def add_summary(
    writer: SummaryWriter, pictures: dict[str, Image.Image], settings: dict, kept: dict[str, float]
) -> None:
    """Add pictures by title, and the settings of a run with scores of `kept`, the kept epoch's row of history.csv."""
    plain = {name: value if isinstance(value, int | float | str) else str(value) for name, value in settings.items()}
    for title, picture in pictures.items():
        writer.add_image(title, np.asarray(picture), dataformats="HWC")
    scores = {f"kept/{name}": kept[name] for name in KEPT_SCORES if name in kept}
    writer.add_hparams(plain, scores, run_name=".")
