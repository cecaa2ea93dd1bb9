"""Write a run as one ONNX file: uint8 photographs in, calibrated probabilities out, any number of them at once.

SM_CHANNEL_MODEL=<folder of runs> NAME=resnet18 python export.py

The file is written when it says what torch says, of real photographs and by onnxruntime, and not before.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pathlib
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import numpy as np

import dataset
import model
from toolkit.config import extras, settings, sources
from toolkit.labels import CLASSES
from toolkit.models import onnx_file
from toolkit.runs import checkpoint, folders
from toolkit.system import console, files
from toolkit.system.console import InputError, say

if TYPE_CHECKING:
    import onnx

    from toolkit.data.store import Store

OPSET = 18  # the one that torch's exporter is written in; others it makes by converting that one
LARGEST = 2**31 - 2**20  # bytes of weights: protobuf ends at 2 GiB
PHOTOGRAPHS = 12  # on which the file is tried
BATCHES = (1, 3)  # photographs at once
TOLERANCE = 1e-3  # of probabilities: rounding grows with depth, in a resnet152 of random weights to 1e-4


def main(argv: list[str]) -> None:
    config, _ = sources.read(settings.ExportSettings, argv)
    extras.need("export.py", "onnx", "onnxscript", "onnxruntime")
    headers = folders.named(config.sm_channel_model, config.name, folders.WEIGHTS, checkpoint.read_header)
    targets = {folder: target_of(config, folder) for folder in headers}
    for folder, target in targets.items():
        export(config, folder, target)


def target_of(config: settings.ExportSettings, folder: pathlib.Path) -> pathlib.Path:
    """Where the file of that run goes. Raises InputError where nothing can be written there."""
    if config.sm_output_data_dir:
        there = config.sm_output_data_dir / folder.relative_to(config.sm_channel_model)
        return files.make_folder(there, "SM_OUTPUT_DATA_DIR") / folders.EXPORTED
    try:
        return files.make_folder(folder, "SM_CHANNEL_MODEL") / folders.EXPORTED
    except InputError as error:
        raise InputError(f"{error}; set SM_OUTPUT_DATA_DIR to write elsewhere") from None


def export(config: settings.ExportSettings, folder: pathlib.Path, target: pathlib.Path) -> None:
    """Make the file of one run, check it, and write it. Raises InputError where a check fails."""
    net, header = model.load(folder / folders.WEIGHTS)
    store, what = photographs(config, folder, header["size"])
    made = as_onnx(net, header)
    content = onnx_file.as_bytes(made, onnx_file.header_of(header))
    check_form(made, content)
    check_answers(net, header, onnx_file.Net(target, content), store, what)
    files.write(target, content)
    say(f"written: {target.absolute()} ({len(content) / 2**20:.1f} MiB)")


def as_onnx(net, header: dict) -> onnx.ModelProto:
    """The net with all that comes before and after it, for any number of photographs.

    Raises InputError where torch's exporter cannot translate the net.
    """
    import torch

    whole = with_preprocessing(net.eval(), header)
    if sum(value.nbytes for value in whole.state_dict().values()) > LARGEST:
        raise InputError(f"{header['backbone']}: has more weights than the 2 GiB that one ONNX file can hold")
    example = torch.zeros(2, *header["size"], 3, dtype=torch.uint8)  # of two: from one the exporter infers "always one"
    with silence():
        try:
            program = torch.onnx.export(
                whole, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[onnx_file.INPUT], output_names=[onnx_file.OUTPUT], opset_version=OPSET, verbose=False,
            )  # fmt: skip
        except Exception as error:  # whatever its many parts raise
            reason = str(error.__cause__ or error).strip().split("\n")[0]
            raise InputError(
                f"{header['backbone']}: torch {torch.__version__} cannot translate this net to ONNX: {reason}"
            ) from None
    return without_notes(program.model_proto)


@contextlib.contextmanager
def silence():
    """Nothing is heard of the exporter, which prints, warns and logs of its own inner life."""
    nowhere = io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    finally:
        logging.disable(logging.NOTSET)


def with_preprocessing(net, header: dict):
    """A module from photographs, RGB, uint8, shape (b, height, width, 3), to probabilities, float32, shape (b, 18)."""
    import torch

    from toolkit.scoring.decision import Decision

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            mean, std = (torch.tensor(header[name]) for name in ("mean", "std"))
            scale, bias = Decision.of_header(header["decision"]).scale_and_bias()
            self.net, self.scale = net, scale
            for name, value in {"gain": 1 / (255 * std), "offset": -mean / std, "bias": torch.tensor(bias)}.items():
                self.register_buffer(name, value.float())

        def forward(self, photographs: torch.Tensor) -> torch.Tensor:
            # Contiguous: from another layout the exporter makes gathers that shuffle memory for nothing.
            inputs = (photographs.float() * self.gain + self.offset).permute(0, 3, 1, 2).contiguous()
            return (self.net(inputs)[:, :CLASSES] * self.scale + self.bias).softmax(1)

    return Whole().eval()


def without_notes(made: onnx.ModelProto) -> onnx.ModelProto:
    """The same without what the exporter notes of each step: where in which source file, on this machine, it stands."""
    graph = made.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    return made


def check_form(made: onnx.ModelProto, content: bytes) -> None:
    """Say of what form the file is. Raises InputError unless onnx's own checker finds it in order."""
    import onnx
    import torch

    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # the checker's own, and those of shape inference
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"onnx {onnx.__version__} finds the file that torch made out of order: {reason}") from None
    opsets = ", ".join(f"{entry.domain or 'opset'} {entry.version}" for entry in made.opset_import)
    say(
        f"ONNX {opsets}, IR version {made.ir_version}, float32, made by torch {torch.__version__}; "
        f"in order, says onnx {onnx.__version__}"
    )


def photographs(config: settings.ExportSettings, folder: pathlib.Path, size: tuple[int, int]) -> tuple[Store, str]:
    """Decoded photographs to try the file on, and what they are.

    Validation photographs of the run where they are at hand; else faces that are drawn now, which show as well whether
    the file computes what the net does. Raises InputError where SM_CHANNEL_TRAIN does not have the former, or one of
    them cannot be read.
    """
    from toolkit.data.store import Store

    paths, root = held_out(folder, config.sm_channel_train)
    missing = [path for path in paths if not os.path.isfile(path)]
    if config.sm_channel_train and (missing or not paths):
        raise InputError(
            f"SM_CHANNEL_TRAIN={config.sm_channel_train}: expected the photographs that {folder / 'validation.csv'} "
            f"names, found {'no ' + missing[0] if missing else 'no such table'}; leave it unset to take drawn faces"
        )
    with tempfile.TemporaryDirectory() as scratch:
        drawn = missing or not paths
        store = Store(draw(scratch) if drawn else paths, size)
        if bad := store.fill():
            raise InputError("; ".join(f"{store.paths[row]}: cannot be read: {reason}" for row, reason in bad.items()))
    return store, "drawn faces, as the run's own photographs are not here" if drawn else f"photographs of {root}"


def held_out(folder: pathlib.Path, channel: pathlib.Path | None) -> tuple[list[str], pathlib.Path | None]:
    """Paths of some validation photographs of the run, and the image folder: below `channel`, or where they were then.

    None where the run's folder does not say: its weights can be used without the files beside them.
    """
    try:
        channel = channel or json.loads((folder / folders.SETTINGS).read_text())["settings"]["sm_channel_train"]
        names = files.read_csv(folder / "validation.csv", ("path",), "SM_CHANNEL_MODEL", key="path")["path"]
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return [], None
    root = dataset.image_folder(pathlib.Path(channel))
    places = np.linspace(0, len(names), PHOTOGRAPHS, endpoint=False).astype(int)
    return [str(root / names[place]) for place in places], root


def draw(folder: str) -> list[str]:
    """Paths of drawn faces in that folder."""
    from toolkit.demo import synthetic

    cast = synthetic.draw_cast(synthetic.EVAL_SHARES, 2, np.random.default_rng(0))
    synthetic.draw_people(cast, range(2), 0, lambda person, number: f"{folder}/{person}-{number}.jpg")
    return sorted(str(path) for path in pathlib.Path(folder).iterdir())[:PHOTOGRAPHS]


def check_answers(net, header: dict, candidate: onnx_file.Net, store: Store, what: str) -> None:
    """Say how far the file is from torch on these photographs. Raises InputError unless it gives the same."""
    import torch

    farthest, same = compare(net, header, candidate, store, BATCHES)
    distance = ", ".join(f"{far:.1e} in batches of {size}" for size, far in farthest.items())
    compared = f"{candidate} against torch {torch.__version__} on {len(store)} {what}: probabilities differ by up to "
    if not (max(farthest.values()) <= TOLERANCE and same):  # also where they are no numbers
        raise InputError(
            f"{compared}{distance}; expected at most {TOLERANCE:.0e} and the same classes; nothing is written"
        )
    say(f"{compared}{distance}; the same classes")


def compare(net, header: dict, candidate: onnx_file.Net, store: Store, batches: tuple[int, ...]) -> tuple[dict, bool]:
    """How far probabilities are from torch's at most, as {photographs at once: distance}; and whether classes agree."""
    from toolkit.scoring.decision import Decision, decide
    from toolkit.system import device
    from toolkit.training import step

    decision = Decision.of_header(header["decision"])
    faces = step.Faces(store, device.choose("cpu", "fp32"), header["mean"], header["std"])
    logits = step.predict(net, faces, np.arange(len(store)))
    expected = decision.probabilities(logits[:, :CLASSES].numpy())
    found = {size: candidate.predict(store, size) for size in batches}
    classes = [decide(p, decision.shares, decision.strength).tolist() for p in (expected, *found.values())]
    return {size: np.abs(p - expected).max() for size, p in found.items()}, classes.count(classes[0]) == len(classes)


if __name__ == "__main__":
    console.run(main)
