"""The weights of a run in their file: whole, of these classes, or refused."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from toolkit.data.framing import Framing
from toolkit.labels import CLASS_NAMES, CLASSES
from toolkit.runs import tensor_file
from toolkit.runs.weights import Header, load_weights, save_weights
from toolkit.scoring.decision import Decision
from toolkit.scoring.prior_correction import PriorCorrection
from toolkit.scoring.prior_shift import AttributeCalibration
from toolkit.system.console import InputError

EVEN = (1 / CLASSES,) * CLASSES
AGE = AttributeCalibration(0.8, (0.1, -0.2, 0.1), (0.5, 0.3, 0.2), 120)
HEADER = Header(
    run="r",
    backbone="resnet18",
    head="flat",
    framing=Framing((64, 48)),
    mean=(0.5,) * 3,
    std=(0.2,) * 3,
    decision=Decision(1.5, 0.25, PriorCorrection(EVEN, EVEN), {"age": AGE}, (0.5, 0.5)),
    scores={"epoch": 1, "macro_f1": 0.5},
)


def test_weights_and_header_survive_the_round_trip(tmp_path):
    path = tmp_path / "model.safetensors"
    state = {"a": torch.randn(3, 4), "b": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    save_weights(path, state, HEADER)
    loaded, header = load_weights(path)
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert dataclasses.replace(header, checksum="") == HEADER and len(header.checksum) == 64
    assert tuple(tensor_file.read_header(path)["classes"]) == CLASS_NAMES


def test_damaged_and_foreign_weights_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, {"a": torch.zeros(100)}, HEADER)
    whole = path.read_bytes()
    for damaged in (b"", whole[:7], whole[:200], whole[:-1], b"not a safetensors file at all"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="found a damaged or foreign file"):
            load_weights(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="expected weights that train.py wrote"):
        load_weights(path)


def test_a_flipped_bit_anywhere_in_the_header_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, {"a": torch.zeros(1)}, HEADER)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            load_weights(path)


@pytest.mark.parametrize("classes", [CLASS_NAMES[:-1], (*CLASS_NAMES[:-1], "a cat"), CLASS_NAMES[::-1]])
def test_weights_of_another_class_table_are_refused(tmp_path, classes):
    tensor_file.save(tmp_path / "w", {"a": torch.zeros(1)}, HEADER.as_plain() | {"classes": classes})
    with pytest.raises(InputError, match="expected the 18 classes of toolkit/labels.py"):
        load_weights(tmp_path / "w")
