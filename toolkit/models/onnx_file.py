"""A run in one ONNX file: photographs in, calibrated probabilities out, and all that its header says of the run.

Its last 64 bytes are the SHA-256 of all that stands before them, and, for ONNX, the value of a last entry of metadata.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from toolkit.labels import CLASSES
from toolkit.runs import checkpoint, folders
from toolkit.system.console import InputError, bar

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from toolkit.data.store import Store

INPUT, OUTPUT = "photographs", "probabilities"
CHECKSUM = "checksum"  # of the file; in the weights' header it is theirs, which here is called:
OF_WEIGHTS = "weights"
CHECKSUM_LENGTH = 64  # hexadecimal digits


def header_of(weights: dict) -> dict:
    """The header of the file, from that of the weights which it is made of."""
    return {OF_WEIGHTS if key == CHECKSUM else key: value for key, value in weights.items()}


def as_bytes(model: onnx.ModelProto, header: dict) -> bytes:
    """The content of the file. The header is of plain types: each of its values becomes metadata, as JSON."""
    import onnx

    del model.metadata_props[:]
    for key, value in header.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    entry = onnx.StringStringEntryProto(key=CHECKSUM, value="0" * CHECKSUM_LENGTH)
    # Messages of protobuf one after another are one message: an entry at the end is the last one of the model.
    content = model.SerializeToString() + onnx.ModelProto(metadata_props=[entry]).SerializeToString()[:-CHECKSUM_LENGTH]
    return content + hashlib.sha256(content).hexdigest().encode()


def read_header(path: pathlib.Path) -> dict:
    """The header of the run, read without torch.

    Raises InputError where the file is damaged, foreign, of other classes, or not of the weights that lie beside it.
    """
    metadata = _session(path.read_bytes(), path).get_modelmeta().custom_metadata_map
    header = checkpoint.fitting({key: json.loads(text) for key, text in metadata.items() if key != CHECKSUM}, path)
    weights = path.with_name(folders.WEIGHTS)
    if weights.exists() and checkpoint.read_header(weights)[CHECKSUM] != header[OF_WEIGHTS]:
        raise InputError(f"{path}: was made from other weights than {weights.name} beside it; run export.py again")
    return header


class Net:
    """The file as a function of photographs, by onnxruntime on the CPU, with as many threads as torch has."""

    def __init__(self, path: pathlib.Path, content: bytes | None = None):
        """`content` is what will be in the file; None reads it. Raises InputError where it is damaged or foreign."""
        import torch

        self.path, self.session = path, _session(content or path.read_bytes(), path, torch.get_num_threads())

    def __str__(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    def __call__(self, photographs: np.ndarray) -> np.ndarray:
        """Probabilities, float32, shape (b, 18), of photographs: RGB, uint8, shape (b, height, width, 3)."""
        with _naming(self.path):
            return self.session.run([OUTPUT], {INPUT: photographs})[0]

    def predict(self, store: Store, batch_size: int, mirrored: bool = False) -> np.ndarray:
        """Those of all photographs in the store, with `mirrored` the mean of both sides: float64, shape (n, 18)."""
        import torch

        found = np.zeros((len(store), CLASSES))
        for first in bar(range(0, len(store), batch_size), "predicting"):
            some = torch.arange(first, min(first + batch_size, len(store)))
            pixels = store.gather(some)
            sides = [pixels, pixels.flip(2)] if mirrored else [pixels]
            found[some.numpy()] = np.mean([self(side.numpy()) for side in sides], 0, np.float64)
        return found


def _session(content: bytes, path: pathlib.Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Of that content of the file; with no threads given, only to read what it says."""
    import onnxruntime

    body, stated = memoryview(content)[:-CHECKSUM_LENGTH], content[-CHECKSUM_LENGTH:]
    if hashlib.sha256(body).hexdigest().encode() != stated:
        raise InputError(
            f"{path}: expected a whole file that export.py wrote, found a damaged or foreign file: "
            f"its checksum is wrong; run export.py again"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors, which are raised too
    if threads is None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:
        options.intra_op_num_threads = threads
    with _naming(path):
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _naming(path: pathlib.Path):
    """Raises InputError that names the file where onnxruntime cannot run it; its errors have no class in common."""
    import onnxruntime

    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{path}: onnxruntime {onnxruntime.__version__} cannot run it: {reason}") from None
