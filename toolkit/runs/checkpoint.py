"""Durable files of tensors: the weights of a run, and the state from which an unfinished run goes on.

Both are safetensors files, which hold numbers and texts and can run nothing. A checksum over all of the file stands in
its header and is checked before anything of it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from toolkit.labels import CLASS_NAMES
from toolkit.system.console import InputError, say
from toolkit.system.files import replacing

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 5
HEADER = ("format", "classes", "run", "backbone", "head", "size", "mean", "std", "decision", "scores")  # of weights
UNKNOWN = "0" * 64  # stands in the place of the checksum while it is taken
CHECKSUM = re.compile(rb'"checksum":"\\"([0-9a-f]{64})\\""')
STATES = ("state-1.safetensors", "state-2.safetensors")  # two generations: the older one is written over
LONGEST_HEADER = 100_000_000  # bytes, as in safetensors


def save_weights(path: pathlib.Path, state: dict[str, Tensor], header: dict) -> None:
    """Write weights and header (plain types: all of HEADER but the first two) in one durable step."""
    _save(path, state, {"format": FORMAT, "classes": CLASS_NAMES, **header})


def load_weights(path: pathlib.Path) -> tuple[dict[str, Tensor], dict]:
    """The weights, on the CPU, and the header. Raises InputError as `read_header` does, and on a wrong checksum."""
    header = read_header(path)
    return _load(path), header


def restore(net: nn.Module, state: dict[str, Tensor], assign: bool = False) -> None:
    """`net.load_state_dict`, of tensors that a file has held: it has lost which version of each layer wrote them.

    Some nets (mnasnet) refuse what says no version. With `assign` the net takes the tensors themselves.
    """
    whole = net.state_dict()  # with the versions of the layers that are here, which wrote all files that there are
    whole.clear()
    whole.update(state)
    net.load_state_dict(whole, assign=assign)


def read_header(path: pathlib.Path) -> dict:
    """The header, read without torch. Raises InputError where the file is damaged, foreign, or of other classes."""
    return fitting(_read_header(path), path)


def fitting(header: dict, path: pathlib.Path) -> dict:
    """The header that was read from this file. Raises InputError where it is no run's, or of other classes."""
    if missing := [key for key in HEADER if key not in header]:
        raise InputError(
            f"{path}: expected weights that train.py wrote, found a file without {', '.join(missing)} in its header"
        )
    if header["format"] != FORMAT:
        raise InputError(f"{path}: expected format {FORMAT}, found {header['format']}; use the version that wrote it")
    if tuple(header["classes"]) != CLASS_NAMES:
        other = [f"{k}: {name!r}" for k, name in enumerate(header["classes"]) if name not in CLASS_NAMES[k : k + 1]]
        raise InputError(
            f"{path}: expected the {len(CLASS_NAMES)} classes of toolkit/labels.py, "
            f"found {len(header['classes'])}, of which differ {', '.join(other[:3]) or 'the last'}"
        )
    return header


@dataclass
class State:
    """How far a run has come, and all that it needs to go on and to make its files anew."""

    identity: dict  # what must be the same for a run to go on: see runs.identity
    started: str  # when the run began: ISO 8601, UTC
    seconds: float = 0.0  # that it ran, over all its processes
    epoch: int = 0  # epochs that are done
    losses: list[float] = field(default_factory=list)  # of the steps of the next epoch that are done
    history: list[dict] = field(default_factory=list)  # a row an epoch
    micro_batch_size: int | None = None  # where the memory asked for a smaller one than the settings
    best: int = 0  # the epoch of the best weights, from 1; 0 is none yet
    decision: dict = field(default_factory=dict)  # of the best epoch: how its logits become classes
    # net.*, average.*, optimizer.*, and of the best epoch best.* and validation: its logits of validation photographs
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, int]:
        return self.epoch, len(self.losses)

    def where(self) -> str:
        return f"epoch {self.epoch + 1}, after {len(self.losses)} of its steps"

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of `name`.*, by the rest of their names."""
        parts = {key: key.partition(".") for key in self.tensors}
        return {rest: self.tensors[key] for key, (first, _, rest) in parts.items() if first == name}

    def only(self, *parts: str) -> dict[str, Tensor]:
        """The tensors of these parts, by their whole names."""
        return {key: value for key, value in self.tensors.items() if key.partition(".")[0] in parts}


class States:
    """The two generations of a run's state in a folder."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.notes = {}  # {path: what it says, but for the tensors} of those that can be read
        for path in self.paths:
            try:
                header = _read_header(path)
                self.notes[path] = State(**{key: header[key] for key in State.__dataclass_fields__ if key != "tensors"})
            except FileNotFoundError:
                continue
            except (InputError, KeyError, TypeError):
                say(f"note: {path} is damaged or foreign, and is passed over")

    @property
    def paths(self) -> list[pathlib.Path]:
        return [self.folder / name for name in STATES]

    def newest(self) -> list[pathlib.Path]:
        """The files of this run, the newest first."""
        return sorted(self.notes, key=lambda path: self.notes[path].steps, reverse=True)

    def load(self) -> State | None:
        """The newest state that is whole. Says which ones are not."""
        for path in self.newest():
            try:
                self.notes[path].tensors = _load(path)
                return self.notes[path]
            except InputError as error:
                del self.notes[path]
                say(f"note: {error}{'; the state before it is used' if self.notes else ''}")
        return None

    def save(self, state: State) -> None:
        """Write it over the older generation, or over a damaged one."""
        free = [path for path in self.paths if path not in self.notes]
        path = free[0] if free else self.newest()[-1]
        header = {key: getattr(state, key) for key in State.__dataclass_fields__ if key != "tensors"}
        _save(path, state.tensors, header)
        self.notes[path] = State(**header)

    def remove(self) -> None:
        for path in self.paths:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else is in it
            self.folder.rmdir()


def _save(path: pathlib.Path, tensors: dict[str, Tensor], header: dict) -> None:
    from safetensors.torch import save_file  # and with it torch, which takes seconds

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    texts = {key: json.dumps(value) for key, value in {**header, "checksum": UNKNOWN}.items()}
    with replacing(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        try:
            save_file(tensors, temporary, texts)
        except SafetensorError as error:  # which is how it passes on that the disk is full
            raise OSError(0, str(error)) from None
        place, _, checksum = _checksum(temporary)
        with temporary.open("rb+") as file:
            file.seek(place)
            file.write(checksum)


def _load(path: pathlib.Path) -> dict[str, Tensor]:
    try:
        _, stated, found = _checksum(path)
        if stated != found:
            raise ValueError("its checksum is wrong")
        with safe_open(path, framework="pt") as file:
            # Copies, as the file may be replaced while they are in use, which some systems refuse while it is mapped.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: pathlib.Path, error: Exception) -> InputError:
    return InputError(f"{path}: expected a whole file that train.py wrote, found a damaged or foreign file: {error}")


def _read_header(path: pathlib.Path) -> dict:
    try:
        with safe_open(path, framework="numpy") as file:
            return {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _checksum(path: pathlib.Path) -> tuple[int, bytes, bytes]:
    """Where in the file its checksum stands, what it says there, and what the file has: SHA-256, in hexadecimal.

    It is that of the file with UNKNOWN in its place. Raises ValueError where there is none.
    """
    with path.open("rb") as file:
        start = file.read(8)
        start += file.read(min(int.from_bytes(start, "little"), LONGEST_HEADER))
        found = CHECKSUM.search(start)
        if not found:
            raise ValueError("it has no checksum")
        begin, end = found.span(1)
        digest = hashlib.sha256(start[:begin] + UNKNOWN.encode() + start[end:])
        while content := file.read(2**20):
            digest.update(content)
    return begin, found[1], digest.hexdigest().encode()
