"""A whole ONNX file may come from anybody: a checksum does not say who wrote it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.data.framing import Framing
from toolkit.labels import CLASSES
from toolkit.models import onnx_file
from toolkit.runs.weights import Header
from toolkit.system.console import InputError


def answering(answer: onnx.TensorProto) -> bytes:
    """A file with our header, whose answer to every photograph is this tensor, called answer."""
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    nodes = [
        helper.make_node("Cast", [onnx_file.INPUT], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("ReduceMax", ["flat"], ["largest"], axes=[1]),
        helper.make_node("Mul", ["largest", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "answer"], [onnx_file.OUTPUT]),
    ]
    inputs = [helper.make_tensor_value_info(onnx_file.INPUT, TensorProto.UINT8, ["b", 2, 2, 3])]
    outputs = [helper.make_tensor_value_info(onnx_file.OUTPUT, TensorProto.FLOAT, ["b", "n"])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, [zero, answer])
    header = Header("a", "small", "flat", Framing((2, 2)), (0.5,) * 3, (0.25,) * 3)
    return onnx_file.as_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), header)


def ask(content: bytes, tmp_path) -> np.ndarray:
    return onnx_file.OnnxModel(tmp_path / "model.onnx", content)(np.zeros((3, 2, 2, 3), np.uint8))


def test_answers_are_probabilities_or_refused(tmp_path):
    right = np.full((1, CLASSES), 1 / CLASSES, np.float32)
    np.testing.assert_array_equal(
        ask(answering(numpy_helper.from_array(right, "answer")), tmp_path), right.repeat(3, 0)
    )
    for wrong in (right * 2, right - 1 / CLASSES, np.full((1, 2), 0.5, np.float32), right * [[-1] * 9 + [3] * 9]):
        content = answering(numpy_helper.from_array(wrong.astype(np.float32), "answer"))
        with pytest.raises(InputError, match=r"model.onnx: expected 18 probabilities .* found other numbers"):
            ask(content, tmp_path)


def test_no_other_file_is_read(tmp_path, monkeypatch):
    """onnxruntime looked for such files in the current folder."""
    monkeypatch.chdir(tmp_path)
    np.full(CLASSES, 1 / CLASSES, np.float32).tofile("secret")
    for name in ("secret", str(tmp_path / "secret"), f"../{tmp_path.name}/secret"):
        answer = TensorProto(name="answer", data_type=TensorProto.FLOAT, dims=[1, CLASSES])
        answer.data_location = TensorProto.EXTERNAL
        answer.external_data.add(key="location", value=name)
        with pytest.raises(InputError, match="model.onnx: onnxruntime .* cannot run it: .*External data path"):
            ask(answering(answer), tmp_path)
