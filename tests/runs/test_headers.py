"""Headers with a right checksum and wrong values: refused in one line, or as good as any other."""

import copy
import dataclasses
import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_weights import HEADER

from toolkit.models import onnx_file
from toolkit.runs import lookup
from toolkit.runs.checkpoint import CHECKPOINTS, Checkpoint, Checkpoints
from toolkit.runs.fingerprint import differences
from toolkit.runs.weights import Header, read_header
from toolkit.serving.ensemble import decide_together
from toolkit.system.console import InputError
from toolkit.training.checkpointer import best_epoch

GENDER = dataclasses.replace(HEADER.decision.attributes["age"], bias=(0.1, 0.2), priors=(0.5, 0.5))
DECISION = dataclasses.replace(HEADER.decision, attributes=HEADER.decision.attributes | {"gender": GENDER})
WHOLE = json.loads(json.dumps(dataclasses.replace(HEADER, decision=DECISION).as_plain()))
STATE = Checkpoint(
    {"settings": {"lr": 0.1}, "photographs": "", "weights": "", "code": {"train.py": ""}}, "now", 1.0, 2, [0.5],
    [{"epoch": 1, "macro_f1": 0.1, "lr": 0.1}, {"epoch": 2, "macro_f1": 0.2, "lr": 0.1}], 4, 2, WHOLE["decision"],
).as_plain()  # fmt: skip
WRONG = (None, True, -1, 0, 2.5, 1e308, float("nan"), float("inf"), 10**400, "x", "", [], {}, [[]], [None], {"a": []})


def places(value, path=()):
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def crafted(whole: dict):
    """Each value of the header, of whatever depth, replaced by each of WRONG, and each left out."""
    for *path, last in (path for path in places(whole) if path):
        for wrong in (*WRONG, places):
            values = copy.deepcopy(whole)
            inner = values
            for key in path:
                inner = inner[key]
            if wrong is places:
                del inner[last]
            else:
                inner[last] = wrong
            yield values


@pytest.mark.filterwarnings("error")
def test_weights_with_values_of_wrong_types_are_refused_or_give_probabilities(tmp_path, capsys):
    refused, taken, p = 0, 0, np.random.default_rng(0).dirichlet([1.0] * 18, 20)
    for values in crafted(WHOLE):
        try:
            header = Header.from_plain(values, tmp_path)
        except InputError as error:
            assert str(error).startswith(str(tmp_path)) and "\n" not in str(error) and len(str(error)) < 1500
            refused += 1
            continue
        taken += 1
        lookup._describe(tmp_path, header)
        with np.errstate(over="ignore", under="ignore"):
            classes = header.decision.classes(np.log(p))
            answer = decide_together([header.decision] * 2, np.stack([p, p]), "mean", adapt=True)
        assert np.isfinite(answer.probabilities).all()
        assert set(classes) <= set(range(18)) and np.isfinite(header.mean + header.std).all()
    assert refused > 500 and taken > 50


def test_states_with_values_of_wrong_types_are_refused_or_can_be_compared():
    refused = 0
    for values in crafted(STATE):
        try:
            state = Checkpoint.from_plain(values)
        except ValueError:
            refused += 1
            continue
        assert differences(state.fingerprint, STATE["fingerprint"]) is not None and state.where()
        assert best_epoch(state.history) <= max([row["epoch"] for row in state.history], default=0)
    assert refused > 500


def test_headers_that_are_nested_too_deeply_are_damaged_files(tmp_path, capsys):
    deep = {"format": "[" * 100_000 + "]" * 100_000}
    for name in ("model.safetensors", *CHECKPOINTS):
        save_file({"a": np.zeros(1)}, tmp_path / name, deep)
    with pytest.raises(InputError, match="found a damaged or foreign file: its header is nested too deeply"):
        read_header(tmp_path / "model.safetensors")
    assert Checkpoints(tmp_path).load() is None and "passed over" in capsys.readouterr().out
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "g", [value], [value])
    made = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    for text in (deep["format"], "no JSON", "1"):
        del made.metadata_props[:]
        made.metadata_props.add(key="format", value=text)
        content = made.SerializeToString()
        last = onnx.ModelProto(metadata_props=[onnx.StringStringEntryProto(key="checksum", value="0" * 64)])
        content += last.SerializeToString()[:-64]
        (tmp_path / "model.onnx").write_bytes(content + hashlib.sha256(content).hexdigest().encode())
        with pytest.raises(InputError, match=r"model\.onnx"):
            onnx_file.read_header(tmp_path / "model.onnx")
