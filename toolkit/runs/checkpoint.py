"""The checkpoint of an unfinished run: how far it has come, and all that it needs to go on."""

from __future__ import annotations

import contextlib
import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, FiniteFloat

from toolkit.config.types import NotNegative, Whole, adapter
from toolkit.runs import tensor_file
from toolkit.scoring.decision import Decision
from toolkit.system.console import say
from toolkit.system.files import DamagedError

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINTS = ("state-1.safetensors", "state-2.safetensors")  # two generations: the older one is written over


@dataclass
class Progress:
    """How far a run has come: the header of a checkpoint."""

    fingerprint: dict  # what must be the same for a run to go on: see fingerprint.py
    started: str  # when the run began: ISO 8601, UTC
    seconds: NotNegative = 0.0  # of training, over all processes that had this run, one after another
    epoch: Whole = 0  # epochs that are done
    losses: list[FiniteFloat] = field(default_factory=list)  # of the steps that are done in the next epoch
    history: list[dict[str, Whole | FiniteFloat]] = field(default_factory=list)  # a row an epoch
    micro_batch_size: Annotated[Whole, Field(ge=1)] | None = None  # after memory ran out; None is that of the settings
    kept_epoch: Whole = 0  # from 1; 0 before there is one
    decision: dict = field(default_factory=dict)  # of the kept epoch, as plain types

    @classmethod
    def from_plain(cls, values: dict) -> Self:
        """The inverse of `Checkpoint.as_plain`. Raises ValueError on wrong types and values that do not fit."""
        found = adapter(Progress).validate_python(values)
        for name in ("settings", "code"):
            if not isinstance(found.fingerprint.get(name, {}), dict):
                raise ValueError(f"fingerprint.{name}: expected a dictionary")
        if found.kept_epoch > len(found.history) or not all("epoch" in row for row in found.history):
            raise ValueError("history: expected rows of epochs, and the kept one among them")
        if found.kept_epoch:
            Decision.from_plain(found.decision)
        return cls(**vars(found))


@dataclass
class Checkpoint(Progress):
    """`Progress`, with tensors named by part:

    model.*, ema.*, optimizer.*  the state of training
    kept.*                       the weights of the kept epoch
    validation                   its logits of the validation photographs; the run's files are written again from both
    best_classes                 the classes that the best epoch predicts for them; later epochs are compared to it
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, int]:
        """(epochs that are done, steps that are done in the next epoch)."""
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
        """Raises InputError if a file exists but cannot be read now: treating it as missing would lose the run."""
        self.folder = folder
        self.headers: dict[pathlib.Path, Checkpoint] = {}  # of the files that can be read, without their tensors
        for path in self.paths:
            try:
                self.headers[path] = Checkpoint.from_plain(tensor_file.read_header(path))
            except FileNotFoundError:
                continue
            except (DamagedError, ValueError):
                say(f"note: {path} is damaged or foreign, and is passed over")

    @property
    def paths(self) -> list[pathlib.Path]:
        return [self.folder / name for name in CHECKPOINTS]

    def newest_first(self) -> list[pathlib.Path]:
        """The readable files, the one with the most steps first."""
        return sorted(self.headers, key=lambda path: self.headers[path].steps, reverse=True)

    def load(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None. Prints damaged ones. Raises InputError if one cannot be read now."""
        for path in self.newest_first():
            try:
                self.headers[path].tensors = tensor_file.load(path)
                return self.headers[path]
            except DamagedError as error:
                del self.headers[path]
                say(f"note: {error}{'; the state before it is used' if self.headers else ''}")
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint over a damaged or else the older generation: one whole generation always remains."""
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
