"""A run as one ONNX file: uint8 photographs in, calibrated probabilities out, and the run's header as metadata.

The last 64 bytes of the file are the SHA-256, in hexadecimal, of all bytes before them. To ONNX they are the value of
the last entry of metadata.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from toolkit.labels import CLASSES
from toolkit.runs import tensor_file, weights
from toolkit.runs.weights import Header
from toolkit.system.console import InputError, bar, first_line
from toolkit.system.files import damaged

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from toolkit.data.store import Store

INPUT, OUTPUT = "photographs", "probabilities"
CHECKSUM = "checksum"  # key of this file's checksum; the next key is for the checksum of its weights
WEIGHTS_CHECKSUM = "weights"
CHECKSUM_LENGTH = 64
SUM_TOLERANCE = 1e-3  # of probabilities in float32
EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"  # onnxruntime's name of an option


class OnnxModel:
    """An ONNX file as a function of photographs: onnxruntime on the CPU, with as many threads as torch."""

    def __init__(self, path: pathlib.Path, content: bytes | None = None):
        """`content` stands for a file that is not written yet. Raises InputError if it is damaged or foreign."""
        import torch

        self.path, self.session = path, _make_session(content or path.read_bytes(), path, torch.get_num_threads())

    def __call__(self, photographs: np.ndarray) -> np.ndarray:
        """Probabilities: float32, shape (b, 18). Photographs: RGB, uint8, shape (b, height, width, 3).

        Raises InputError if the file cannot be run or gives other output: a checksum does not say who wrote a file.
        """
        with _errors_naming(self.path):
            found = np.asarray(self.session.run([OUTPUT], {INPUT: photographs})[0])
        is_right = found.shape == (len(photographs), CLASSES) and found.dtype == np.float32
        # NaN is left to the caller: it may come from badly trained weights.
        if not is_right or (found < 0).any() or (np.abs(found.sum(1) - 1) > SUM_TOLERANCE).any():
            raise InputError(
                f"{self.path}: expected {CLASSES} probabilities for each photograph, which add up to 1, found other "
                f"numbers: {found.dtype}, shape {found.shape}; export.py makes such a file"
            )
        return found

    def predict(self, store: Store, batch_size: int, mirrored: bool = False) -> np.ndarray:
        """Probabilities of all photographs in the store: float64, shape (n, 18).

        With `mirrored`, the mean of each photograph and its mirror image.
        """
        import torch

        found = np.zeros((len(store), CLASSES))
        for first in bar(range(0, len(store), batch_size), "predicting"):
            index = torch.arange(first, min(first + batch_size, len(store)))
            pixels = store.gather(index)
            views = [pixels, pixels.flip(2)] if mirrored else [pixels]
            found[index.numpy()] = np.mean([self(view.numpy()) for view in views], 0, np.float64)
        return found


def version() -> str:
    """Name and version of onnxruntime."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def as_bytes(model: onnx.ModelProto, header: Header) -> bytes:
    """The content of the file. Each value of the weights' header becomes an entry of metadata, as JSON."""
    import onnx

    del model.metadata_props[:]
    for key, value in {**header.as_plain(), WEIGHTS_CHECKSUM: header.checksum}.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    checksum = onnx.StringStringEntryProto(key=CHECKSUM, value="0" * CHECKSUM_LENGTH)
    # Protobuf reads two messages one after the other as one, merged. So the checksum is appended as a message of its
    # own, whose last bytes are the digits: a reader finds them without parsing the weights.
    last = onnx.ModelProto(metadata_props=[checksum]).SerializeToString()
    content = model.SerializeToString() + last[:-CHECKSUM_LENGTH]
    return content + hashlib.sha256(content).hexdigest().encode()


def read_header(path: pathlib.Path) -> Header:
    """The header of the run, read without torch.

    Raises InputError if the file is damaged, foreign, of other classes, or not made from the weights beside it.
    """
    metadata = _make_session(path.read_bytes(), path).get_modelmeta().custom_metadata_map
    try:
        values = tensor_file.parsed({key: text for key, text in metadata.items() if key != CHECKSUM})
    except ValueError as error:
        raise damaged(path, error) from None
    header = Header.from_plain(values, path)
    beside = path.with_name(weights.WEIGHTS)
    if beside.exists() and weights.read_header(beside).checksum != values.get(WEIGHTS_CHECKSUM):
        raise InputError(f"{path}: was made from other weights than {beside.name} beside it; run export.py again")
    return header


def _make_session(content: bytes, path: pathlib.Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session for the content, after a check of its checksum. Without `threads` it serves only to read metadata."""
    import onnxruntime

    body, stated = memoryview(content)[:-CHECKSUM_LENGTH], content[-CHECKSUM_LENGTH:]
    if hashlib.sha256(body).hexdigest().encode() != stated:
        raise InputError(
            f"{path}: expected a whole file that export.py wrote, found a damaged or foreign file: "
            f"its checksum is wrong; run export.py again"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only, which are also raised: warnings are about the exporter's graph
    # An ONNX file can name files with weights, and onnxruntime would read them from the working folder. Ours names
    # none, and below os.devnull a foreign one finds none.
    options.add_session_config_entry(EXTERNAL_DATA, os.devnull)
    if threads is None:  # reading metadata needs no optimised graph
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:
        options.intra_op_num_threads = threads
    with _errors_naming(path):
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _errors_naming(path: pathlib.Path):
    """Raises InputError that names the file if onnxruntime fails. Its exceptions have no base class of their own."""
    try:
        yield
    except Exception as error:
        reason = first_line(error)
        raise InputError(f"{path}: {version()} cannot run it: {reason}") from None
