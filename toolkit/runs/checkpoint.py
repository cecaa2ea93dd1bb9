"""The checkpoint of an unfinished run: how far it has come, and all that it needs to go on."""

from __future__ import annotations

import contextlib
import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit.runs import tensor_file
from toolkit.runs.tensor_file import DamagedError
from toolkit.system.console import say

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINTS = ("state-1.safetensors", "state-2.safetensors")  # two generations: the older one is written over


@dataclass
class Checkpoint:
    """How far a run has come. Its tensors are named by part:

    model.*, ema.* and optimizer.* are those of training; kept.* are the weights of the kept epoch, and validation its
    logits of the validation photographs, from which the run's files are written again; best_classes are what the best
    epoch predicts of them, to which later ones are compared.
    """

    fingerprint: dict  # what must be the same for a run to go on: see fingerprint.py
    started: str  # when the run began: ISO 8601, UTC
    seconds: float = 0.0  # of training, over all processes that had this run, one after another
    epoch: int = 0  # epochs that are done
    losses: list[float] = field(default_factory=list)  # of the steps that are done of the next epoch
    history: list[dict] = field(default_factory=list)  # a row an epoch
    micro_batch_size: int | None = None  # after memory ran out; None is that of the settings
    kept_epoch: int = 0  # from 1; 0 before there is one
    decision: dict = field(default_factory=dict)  # of that epoch, as plain types
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, int]:
        """Epochs, and steps of the next one, that are done."""
        return self.epoch, len(self.losses)

    def where(self) -> str:
        return f"epoch {self.epoch + 1}, after {len(self.losses)} of its steps"

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors called `name`.*, by the rest of their names."""
        parts = {key: key.partition(".") for key in self.tensors}
        return {rest: self.tensors[key] for key, (first, _, rest) in parts.items() if first == name}

    def parts(self, *names: str) -> dict[str, Tensor]:
        """The tensors of these parts, by their whole names."""
        return {key: value for key, value in self.tensors.items() if key.partition(".")[0] in names}

    def as_plain(self) -> dict:
        """All but the tensors, of JSON's types."""
        return {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "tensors"}


class Checkpoints:
    """The two generations of a run's checkpoint in a folder."""

    def __init__(self, folder: pathlib.Path):
        """Raises InputError where a file is there and cannot be read now: to take it for none would lose the run."""
        self.folder = folder
        self.headers: dict[pathlib.Path, Checkpoint] = {}  # of the files that can be read, without their tensors
        for path in self.paths:
            try:
                header = tensor_file.read_header(path)
                fields = [key for key in Checkpoint.__dataclass_fields__ if key != "tensors"]
                self.headers[path] = Checkpoint(**{key: header[key] for key in fields})
            except FileNotFoundError:
                continue
            except (DamagedError, KeyError, TypeError):
                say(f"note: {path} is damaged or foreign, and is passed over")

    @property
    def paths(self) -> list[pathlib.Path]:
        return [self.folder / name for name in CHECKPOINTS]

    def newest_first(self) -> list[pathlib.Path]:
        """The files of this run that can be read."""
        return sorted(self.headers, key=lambda path: self.headers[path].steps, reverse=True)

    def load(self) -> Checkpoint | None:
        """The newest checkpoint that is whole. Says which ones are not. Raises InputError if one cannot be read now."""
        for path in self.newest_first():
            try:
                self.headers[path].tensors = tensor_file.load(path)
                return self.headers[path]
            except DamagedError as error:
                del self.headers[path]
                say(f"note: {error}{'; the state before it is used' if self.headers else ''}")
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write it over the older generation, or over a damaged one: one whole generation always remains."""
        free = [path for path in self.paths if path not in self.headers]
        path = free[0] if free else self.newest_first()[-1]
        header = checkpoint.as_plain()
        tensor_file.save(path, checkpoint.tensors, header)
        self.headers[path] = Checkpoint(**header)


def remove_checkpoints(folder: pathlib.Path) -> None:
    """Remove both generations; the folder too, unless it holds something else."""
    for name in CHECKPOINTS:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
