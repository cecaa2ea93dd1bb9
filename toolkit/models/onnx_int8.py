"""A float32 ONNX graph in int8: static quantisation by onnxruntime, whose ranges are measured on photographs."""

from __future__ import annotations

import pathlib
import tempfile
from typing import TYPE_CHECKING

import numpy as np

from toolkit.models import onnx_file
from toolkit.models.onnx_export import silent
from toolkit.system.console import InputError, first_line

if TYPE_CHECKING:
    import onnx

BATCH = 16  # photographs of a calibration step
LAYERS = [
    "Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "GlobalAveragePool", "ReduceMean", "Concat", "Flatten",
]  # fmt: skip


class Calibration:
    """Photographs, uint8, shape (n, height, width, 3), as onnxruntime's quantiser asks for them."""

    def __init__(self, photographs: np.ndarray):
        self._batches = iter([photographs[first : first + BATCH] for first in range(0, len(photographs), BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {onnx_file.INPUT: batch}


def quantise(made: onnx.ModelProto, photographs: np.ndarray) -> onnx.ModelProto:
    """The graph with its layers in int8, and the same input and output.

    Normalisation, the last layer and calibration stay float32: the last layer takes no time, and in 8 bits it swaps
    classes that are close.
    Weights have 7 bits: with 8, sums saturate on processors without VNNI, and only there. Raises InputError if
    onnxruntime cannot quantise the graph.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    with tempfile.TemporaryDirectory() as scratch, silent():
        plain, fused, small = (str(pathlib.Path(scratch) / name) for name in ("plain.onnx", "fused.onnx", "int8.onnx"))
        onnx.save(made, plain)
        try:
            shape_inference.quant_pre_process(plain, fused, skip_symbolic_shape=True)  # fuses batch norm
            quantization.quantize_static(
                fused, small, Calibration(photographs), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                reduce_range=True, activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8, op_types_to_quantize=LAYERS,
                nodes_to_exclude=_outside(onnx.load(fused)),
            )  # fmt: skip
        except Exception as error:  # of several libraries, without a common base class
            reason = first_line(error)
            raise InputError(f"EXPORT=int8: {onnx_file.version()} cannot quantise this net: {reason}") from None
        quantised = onnx.load(small)
    used = {node.domain for node in quantised.graph.node}
    named = [entry for entry in quantised.opset_import if entry.domain in used]  # onnxruntime names all that it knows
    del quantised.opset_import[:]
    quantised.opset_import.extend(named)
    return quantised


def _outside(made: onnx.ModelProto) -> list[str]:
    """The names of the nodes before the first convolution, and from the last layer with weights on."""
    nodes = list(made.graph.node)
    inside = [number for number, node in enumerate(nodes) if node.op_type in ("Conv", "Gemm", "MatMul")]
    return [node.name for number, node in enumerate(nodes) if not inside[0] <= number < inside[-1]]
