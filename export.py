"""Write a run as one ONNX file: uint8 photographs in, calibrated probabilities out, any number of them at once.

SM_CHANNEL_MODEL=<folder of runs> NAME=resnet18 python export.py

The file is written only after onnxruntime has given the same probabilities as torch on real photographs.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C during these imports ends the script without a traceback; later, console.run does
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import math
import os
import pathlib
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np

import dataset
import model
from toolkit.config import extras, settings, sources
from toolkit.labels import CLASSES
from toolkit.models import onnx_export, onnx_file
from toolkit.runs import folders, lookup
from toolkit.runs.weights import WEIGHTS, Header, read_header
from toolkit.system import console, csv_files, files
from toolkit.system.console import InputError, say

if TYPE_CHECKING:
    from toolkit.data.framing import Framing
    from toolkit.data.store import Store

PHOTOGRAPHS = 12  # to compare on
BATCH_SIZES = (1, 3)  # to compare with: the file must not depend on the batch size of the export, which is 2
CALIBRATION, COMPARED = 100, 1000  # photographs on which int8's ranges are measured, and its classes compared
EQUAL_CLASSES = 0.99  # least share of classes that int8 must not change
TOLERANCE = 1e-3  # of probabilities: rounding grows with depth, to 1e-4 in a resnet152 of random weights


def main(argv: list[str]) -> None:
    config, _ = sources.read(settings.ExportSettings, argv)
    extras.need("export.py", "onnx", "onnxscript", "onnxruntime")
    headers = lookup.find_runs(config.sm_channel_model, config.name, WEIGHTS, read_header)
    targets = {run: target_path(config, run) for run in headers}  # all are checked before the first export
    for run, target in targets.items():
        export(config, run, target)


def target_path(config: settings.ExportSettings, run: pathlib.Path) -> pathlib.Path:
    """The path of the run's ONNX file. Raises InputError where its folder cannot be written to."""
    if config.sm_output_data_dir:
        folder = config.sm_output_data_dir / run.relative_to(config.sm_channel_model)
        return files.make_folder(folder, "SM_OUTPUT_DATA_DIR") / folders.EXPORTED
    try:
        return files.make_folder(run, "SM_CHANNEL_MODEL") / folders.EXPORTED
    except InputError as error:
        raise InputError(f"{error}; set SM_OUTPUT_DATA_DIR to write elsewhere") from None


def export(config: settings.ExportSettings, run: pathlib.Path, target: pathlib.Path) -> None:
    """Load the run, build its ONNX file, check its form and predictions, write it. Raises InputError if one fails."""
    net, header = model.load(run / WEIGHTS)
    store, source = sample_photographs(config, run, header)
    made = onnx_export.build(net, header)
    content = onnx_file.as_bytes(made, header)
    say(onnx_export.check_form(made, content))
    candidate = onnx_file.OnnxModel(target, content)
    check_predictions(net, header, candidate, store, source)
    if config.export == "int8":
        content = to_int8(config, run, header, made, candidate)
    files.write(target, content)
    say(f"written: {target.absolute()} ({len(content) / 2**20:.1f} MiB)")


def sample_photographs(config: settings.ExportSettings, run: pathlib.Path, header: Header) -> tuple[Store, str]:
    """Decoded photographs to compare on, and a text that says which.

    They are validation photographs of the run if these are on this machine, else drawn faces, which reveal a wrong
    computation as well. Raises InputError if SM_CHANNEL_TRAIN is set and lacks the run's photographs, or if a
    photograph cannot be decoded.
    """
    names, images = training_photographs(run, config.sm_channel_train)
    paths = [str(images / name) for name in spread(names, PHOTOGRAPHS)]
    missing = [path for path in paths if not os.path.isfile(path)]
    # A final net has no validation photographs; int8 is checked on other photographs, in to_int8.
    needs_none = header.is_of_everybody or config.export == "int8"
    if config.sm_channel_train and (missing or not (paths or needs_none)):
        raise InputError(
            f"SM_CHANNEL_TRAIN={config.sm_channel_train}: expected the photographs that {run / 'validation.csv'} "
            f"names, found {'no ' + missing[0] if missing else 'no such table'}; leave it unset to take drawn faces"
        )
    with tempfile.TemporaryDirectory() as scratch:
        use_drawn = missing or not paths
        store = decoded(draw_faces(scratch) if use_drawn else paths, header.framing)
    source = "drawn faces, as the run's own photographs are not here" if use_drawn else f"photographs of {images}"
    return store, source


def decoded(paths: list[str], framing: Framing, passes_over_bad: bool = False) -> Store:
    """A store of these photographs. Raises InputError if one cannot be decoded, unless such are passed over."""
    from toolkit.data.photo_file import Reading
    from toolkit.data.store import Store

    store = Store(paths, framing, reading=Reading(math.inf, repair=True))  # no limit: training has read them, too
    bad = store.fill()
    if bad and passes_over_bad:  # training with ON_BAD_IMAGE=leave_out did the same
        return decoded([path for row, path in enumerate(paths) if row not in bad], framing)
    if bad:
        raise InputError("; ".join(f"{store.paths[row]}: cannot be read: {reason}" for row, reason in bad.items()))
    return store


def training_photographs(run: pathlib.Path, folder: pathlib.Path | None) -> tuple[list[str], pathlib.Path | None]:
    """Names of the run's validation photographs, and their image folder: `folder`, or else that of the training.

    [] and None if the run's files do not name them: the weights may have been copied alone.
    """
    names = []
    folder = folder or folders.read_settings(run).get("settings", {}).get("sm_channel_train")
    with contextlib.suppress(OSError, InputError):
        names = csv_files.read(run / "validation.csv", ("path",), "SM_CHANNEL_MODEL", key="path")["path"]
    if folder is None:
        return [], None
    images = dataset.image_folder(pathlib.Path(folder))
    return [name for name in names if files.below(images, name)], images


def spread(names: list[str], most: int) -> list[str]:
    """At most `most` names at equal distances in the list, as neighbours belong to one person."""
    return [names[row] for row in np.linspace(0, len(names), min(most, len(names)), endpoint=False).astype(int)]


def to_int8(
    config: settings.ExportSettings, run: pathlib.Path, header: Header, made, plain: onnx_file.OnnxModel
) -> bytes:
    """Quantise the graph `made`: the content of the int8 file. Prints how its classes and speed compare with float32.

    Raises InputError if the share of equal classes is below EQUAL_CLASSES, or training photographs are missing.
    """
    import torch

    from toolkit.models import onnx_int8
    from toolkit.scoring.decision import decide

    chosen = calibration_photographs(config, run)
    calibration, others = (decoded(paths, header.framing, passes_over_bad=True) for paths in chosen)
    quantised = onnx_int8.quantise(made, calibration.gather(torch.arange(len(calibration))).numpy())
    content = onnx_file.as_bytes(quantised, header)
    say(onnx_export.check_form(quantised, content, "int8"))
    classes, seconds = [], []
    for candidate in (plain, onnx_file.OnnxModel(plain.path, content)):
        began = time.perf_counter()
        p = candidate.predict(others, onnx_int8.BATCH)
        seconds.append(time.perf_counter() - began)
        classes.append(decide(p, header.decision.class_priors, header.decision.tau))
    equal = float(np.mean(classes[0] == classes[1]))
    compared = f"int8 against float32 on {len(others)} photographs: {equal:.2%} of classes are equal"
    if equal < EQUAL_CLASSES:
        raise InputError(
            f"EXPORT=int8: {compared}; expected {EQUAL_CLASSES:.0%}; nothing is written; leave EXPORT unset"
        )
    say(f"{compared}; {seconds[0] / seconds[1]:.1f} times as fast here")
    return content


def calibration_photographs(config: settings.ExportSettings, run: pathlib.Path) -> tuple[list[str], list[str]]:
    """Paths of training photographs to calibrate on, and of other photographs to compare on.

    The others are validation photographs, if the run had any. Raises InputError if the image folder is missing.
    """
    validation, images = training_photographs(run, config.sm_channel_train)
    if images is None or not images.is_dir():
        raise InputError(
            f"EXPORT=int8: expected the photographs of the training, to calibrate on, found {images or 'no folder'} of "
            f"{run}; set SM_CHANNEL_TRAIN to their folder"
        )
    everything = [os.fsdecode(name) for name in dataset.paths(dataset.read_faces(images)[0])]
    chosen = spread(sorted(set(everything).difference(validation)), CALIBRATION)
    others = spread(validation or sorted(set(everything).difference(chosen)), COMPARED)
    return [str(images / name) for name in chosen], [str(images / name) for name in others]


def draw_faces(folder: str) -> list[str]:
    """Draw PHOTOGRAPHS faces into that folder. Returns their paths."""
    from toolkit.demo import synthetic

    cast = synthetic.draw_cast(synthetic.EVAL_SHARES, 2, np.random.default_rng(0))
    synthetic.draw_people(cast, range(2), 0, lambda person, number: f"{folder}/{person}-{number}.jpg")
    return sorted(str(path) for path in pathlib.Path(folder).iterdir())[:PHOTOGRAPHS]


def check_predictions(net, header: Header, candidate: onnx_file.OnnxModel, store: Store, source: str) -> None:
    """Print the largest difference to torch on these photographs. Raises InputError if it exceeds TOLERANCE."""
    import torch

    differences, same = compare(net, header, candidate, store, BATCH_SIZES)
    found = ", ".join(f"{difference:.1e} in batches of {size}" for size, difference in differences.items())
    compared = (
        f"{onnx_file.version()} against torch {torch.__version__} on {len(store)} {source}: probabilities differ by up "
        f"to {found}"
    )
    if not (max(differences.values()) <= TOLERANCE and same):  # `not <=`, as a difference may be NaN
        raise InputError(f"{compared}; expected at most {TOLERANCE:.0e} and the same classes; nothing is written")
    say(f"{compared}; the same classes")


def compare(
    net, header: Header, candidate: onnx_file.OnnxModel, store: Store, batch_sizes: tuple[int, ...]
) -> tuple[dict[int, float], bool]:
    """{batch size: largest difference of a probability between torch and the file}; whether all classes agree."""
    from toolkit.data.loader import Loader
    from toolkit.models.predict import predict
    from toolkit.scoring.decision import decide
    from toolkit.system import device

    loader, decision = Loader(store, device.choose("cpu", "fp32"), header.mean, header.std), header.decision
    logits = predict(net, loader, np.arange(len(store)))
    expected = decision.probabilities(logits[:, :CLASSES].numpy())
    found = {size: candidate.predict(store, size) for size in batch_sizes}
    classes = [decide(p, decision.class_priors, decision.tau).tolist() for p in (expected, *found.values())]
    return {size: np.abs(p - expected).max() for size, p in found.items()}, classes.count(classes[0]) == len(classes)


if __name__ == "__main__":
    console.run(main)
