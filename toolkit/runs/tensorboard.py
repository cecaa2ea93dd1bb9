"""A run for TensorBoard: scalars, pictures and hyperparameters, in files that its own writer makes."""

import pathlib
import shutil

import numpy as np
from PIL import Image

OF_TRAINING = ("lr", "train_loss")  # all other columns of history.csv are of validation


class Board:
    """Begun anew whenever a run goes on: its history has all epochs, and half a file is of no use to anybody."""

    def __init__(self, folder: pathlib.Path):
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self.writer, self.shown = SummaryWriter(folder), 0

    def show(self, history: list[dict]) -> None:
        """The scalars of the epochs that it does not have yet."""
        for row in history[self.shown :]:
            for name, value in row.items():
                if name != "epoch":
                    side = "training" if name in OF_TRAINING else "validation"
                    self.writer.add_scalar(f"{side}/{name}", value, row["epoch"])
        self.shown = len(history)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def finish(folder: pathlib.Path, pictures: dict[str, Image.Image], settings: dict, scores: dict[str, float]) -> None:
    """Add to a run that is done: pictures by what stands above each, and the settings with what they came to."""
    from torch.utils.tensorboard import SummaryWriter

    plain = {name: value if isinstance(value, int | float | str) else str(value) for name, value in settings.items()}
    with SummaryWriter(folder) as writer:
        for title, picture in pictures.items():
            writer.add_image(title, np.asarray(picture), dataformats="HWC")
        writer.add_hparams(plain, {f"best/{name}": value for name, value in scores.items()}, run_name=".")
