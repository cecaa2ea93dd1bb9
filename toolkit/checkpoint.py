"""The weights of a run: a safetensors file whose header holds all that inference needs beside them."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from toolkit.console import InputError
from toolkit.files import replacing
from toolkit.labels import CLASS_NAMES

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
HEADER = ("format", "classes", "run", "backbone", "size", "mean", "std", "scores")


def save_weights(path: pathlib.Path, state: dict[str, Tensor], header: dict) -> None:
    """Write weights and header (plain types: all of HEADER but the first two) in one durable step."""
    from safetensors.torch import save_file  # and with it torch, which takes seconds

    header = {"format": FORMAT, "classes": CLASS_NAMES, **header}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {key: json.dumps(value) for key, value in header.items()})


def load_weights(path: pathlib.Path) -> tuple[dict[str, Tensor], dict]:
    """The weights, on the CPU, and the header. Raises InputError as `read_header` does."""
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: expected the weights of a run, found a damaged or foreign file: {error}") from None


def read_header(path: pathlib.Path) -> dict:
    """The header, read without torch. Raises InputError where the file is damaged, foreign, or of other classes."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: expected the weights of a run, found a damaged or foreign file: {error}") from None
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
