"""A run's weights, and their header: all that inference needs, so that nothing has to be typed again."""

from __future__ import annotations

import dataclasses
import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import FiniteFloat

from toolkit.config.types import RUN_WEIGHTS, Positive, Whole, adapter
from toolkit.data.framing import Framing
from toolkit.labels import CLASS_NAMES
from toolkit.runs import tensor_file
from toolkit.scoring.decision import Decision
from toolkit.system.console import InputError
from toolkit.system.files import damaged

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = RUN_WEIGHTS  # of the kept epoch
FORMAT = 7


@dataclass(frozen=True)
class Header:
    """The metadata of a weights file. With the class table and FORMAT, it is the file's header as JSON."""

    run: str  # name of its folder
    backbone: str
    head: Literal["flat", "factored"]
    framing: Framing  # what of a photograph is its input; in the file as size, crop and fit
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]  # of the channels, from 0 to 1
    std: tuple[Positive, Positive, Positive]
    decision: Decision | None = None  # of the kept epoch; None before there is one
    scores: dict[str, Whole | FiniteFloat] = field(default_factory=dict)  # the kept epoch's row of history.csv
    pretrained: str = "none"  # the weights that training started from
    taken: dict = field(default_factory=dict)  # of `pretrained`: SHA-256 of the file, and how much of it fitted
    decided_by: str = "validation people"  # what the decision was fitted on, or "defaults"
    corrections: dict[str, str] = field(default_factory=dict)  # name -> SHA-256 of the tables of label corrections
    machine: str = ""  # on which it was trained
    checksum: str = ""  # of the file; "" before it is written

    REQUIRED = ("run", "backbone", "head", "size", "crop", "fit", "mean", "std", "decision", "scores")

    @property
    def is_of_everybody(self) -> bool:
        """Whether the net was trained on everybody, without validation people."""
        return "macro_f1" not in self.scores

    def as_plain(self) -> dict:
        """The header as JSON types, without the checksum, which the file adds."""
        values = {"format": FORMAT, "classes": CLASS_NAMES, **vars(self), **vars(self.framing)}
        values["decision"] = self.decision and self.decision.as_plain()
        return {key: value for key, value in values.items() if key not in ("framing", tensor_file.CHECKSUM)}

    @classmethod
    def from_plain(cls, values: dict, path: pathlib.Path) -> Header:
        """Raises InputError if the file at `path` is damaged or foreign, or has another format or other classes."""
        try:
            cls._refuse_other_files(values, path)
            known = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
            known |= {"framing": Framing.from_plain(values), "decision": Decision.from_plain(values["decision"])}
            header = adapter(Header).validate_python(known)
            if "epoch" not in header.scores:
                raise ValueError("scores: expected those of an epoch")
            return header
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:  # crafted, or a flipped bit
            raise damaged(path, error) from None

    @classmethod
    def _refuse_other_files(cls, values: dict, path: pathlib.Path) -> None:
        if (found := values.get("format", FORMAT)) != FORMAT:
            raise InputError(f"{path}: expected format {FORMAT}, found {found}; use the version that wrote it")
        if missing := [key for key in ("format", "classes", *cls.REQUIRED) if key not in values]:
            raise InputError(
                f"{path}: expected weights that train.py wrote, found a file without {', '.join(missing)} in its header"
            )
        if tuple(values["classes"]) != CLASS_NAMES:
            names = values["classes"]
            differing = [f"{k}: {name!r}" for k, name in enumerate(names) if name not in CLASS_NAMES[k : k + 1]]
            raise InputError(
                f"{path}: expected the {len(CLASS_NAMES)} classes of toolkit/labels.py, "
                f"found {len(names)}, of which differ {', '.join(differing[:3]) or 'the last'}"
            )


def save_weights(path: pathlib.Path, state: dict[str, Tensor], header: Header) -> None:
    """Write weights and header in one durable step."""
    tensor_file.save(path, state, header.as_plain())


def load_weights(path: pathlib.Path) -> tuple[dict[str, Tensor], Header]:
    """The weights, on the CPU, and the header. Raises InputError as `read_header` does, and on a wrong checksum."""
    header = read_header(path)
    return tensor_file.load(path), header


def read_header(path: pathlib.Path) -> Header:
    """The header, read without torch. Raises InputError if the file is damaged, foreign, or of other classes."""
    return Header.from_plain(tensor_file.read_header(path), path)


def load_into(model: nn.Module, state: dict[str, Tensor], assign: bool = False) -> None:
    """`model.load_state_dict(state, assign=assign)`, for tensors from a file, which has no versions of the layers.

    Some models (mnasnet) refuse a state dict without versions, so it gets the versions of this model's layers.
    """
    versioned = model.state_dict()
    versioned.clear()
    versioned.update(state)
    model.load_state_dict(versioned, assign=assign)
