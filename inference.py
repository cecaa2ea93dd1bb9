"""Write the submission: the class of every photograph in info.csv, predicted by one or several runs of train.py.

SM_CHANNEL_EVAL=<folder> SM_CHANNEL_MODEL=<folder of runs> SM_OUTPUT_DATA_DIR=<folder> NAME=resnet18 python inference.py
SM_CHANNEL_MODEL=<folder of runs> NAME=resnet18 python inference.py face.jpg other.png

The second command prints the classes of these photographs, and writes nothing.

SageMaker imports this module, too, to answer requests with its handlers model_fn, input_fn, predict_fn and output_fn.
"""

if __name__ == "__main__":  # Ctrl-C during these imports ends the script without a traceback; later, console.run does
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import hashlib
import itertools
import os
import pathlib
import time
from typing import NamedTuple

import numpy as np

import dataset
import model
from toolkit.config import settings, sources
from toolkit.demo import synthetic
from toolkit.labels import ATTRIBUTES, PROBABILITY_COLUMNS, to_attributes
from toolkit.serving import handlers, model_archive
from toolkit.serving.ensemble import Answer, Ensemble
from toolkit.system import console, csv_files, distributed, files, world
from toolkit.system.console import InputError, listed, say

WIDTHS = {attribute: max(map(len, values)) for attribute, values in ATTRIBUTES.items()}


class Predictions(NamedTuple):
    """The result of a call: one row per photograph."""

    images: list[str]  # ImageIDs, or the names of photographs
    classes: np.ndarray  # int64, shape (n,)
    probabilities: np.ndarray  # float64, shape (n, 18); NaN for an unreadable photograph


def main(argv: list[str]) -> Predictions | None:
    """Predict; arguments before the first flag are photographs. Returns None on ranks other than 0."""
    if photographs := list(itertools.takewhile(lambda word: not sources.FLAG.match(word), argv)):
        return look_at(photographs, argv[len(photographs) :])
    config, _ = sources.read(settings.InferenceSettings, argv)
    if distributed.is_idle_host():
        return None
    files.make_folders(config, "sm_output_data_dir", "cache_dir")
    synthetic.ensure_for(config)
    with model_archive.unpacked(config.sm_channel_model) as runs:
        ensemble = Ensemble.find(config, runs, model.load)
        info, paths = dataset.read_eval(config.sm_channel_eval)
        people = people_of(config, info)
        with distributed.joined(ensemble.runtime.device):
            probabilities, unreadable, repaired = predict(config, ensemble, info["ImageID"], paths)
    if world.rank():
        return None
    answer = ensemble.decide(probabilities, list(unreadable), people)
    write(config, info, answer, unreadable | repaired, ensemble.report(answer, people))
    return Predictions(info["ImageID"], answer.classes, answer.probabilities)


def look_at(photographs: list[str], argv: list[str]) -> Predictions:
    """Print a line per photograph. Raises InputError if one is missing or, after all lines, if one is unreadable."""
    if missing := [path for path in photographs if not os.path.isfile(path)]:
        raise InputError(
            f"expected photographs before all flags, found no such file: {listed(missing)}; "
            "SM_CHANNEL_EVAL takes a folder of photographs"
        )
    config, _ = sources.read(settings.PhotographSettings, argv)
    with model_archive.unpacked(config.sm_channel_model) as runs:
        ensemble = Ensemble.find(config, runs, model.load)
        probabilities, unreadable, _ = predict(config, ensemble, photographs, photographs)
    answer = ensemble.decide(probabilities, list(unreadable))
    for row, path in enumerate(photographs):
        if row in unreadable:
            continue
        number = int(answer.classes[row])
        names = "  ".join(
            f"{key} {ATTRIBUTES[key][value]:{WIDTHS[key]}}" for key, value in to_attributes(number).items()
        )
        say(
            f"{path:{max(map(len, photographs))}}  class {number:2}  {names}  "
            f"probability {answer.probabilities[row, number]:.3f}"
        )
    if unreadable:
        named = [f"{photographs[row]} ({reason})" for row, reason in unreadable.items()]
        raise InputError(f"cannot be read: {listed(named, most=len(named))}")
    return Predictions(photographs, answer.classes, answer.probabilities)


def people_of(config: settings.InferenceSettings, info: dict[str, list[str]]) -> list[str] | None:
    """The person of each row, from the column of info.csv that POOL names. Raises InputError if it is missing."""
    if config.pool == "none":
        return None
    people = info.get(config.pool, [])
    if not people or not all(name.strip() for name in people):
        found = f"{sum(not name.strip() for name in people)} empty cells in it" if people else ", ".join(info)
        raise InputError(
            f"POOL={config.pool}: expected a column {config.pool} in {config.sm_channel_eval / 'info.csv'} that names "
            f"the person of each photograph, found {found}; add it, or leave POOL unset"
        )
    return people


def predict(
    config: settings.InferenceSettings, ensemble: Ensemble, images: list[str], paths: list[str]
) -> tuple[dict[pathlib.Path, np.ndarray], dict[int, str], dict[int, str]]:
    """{run: calibrated probabilities, float64, shape (n, 18)}; {row: reason} of unreadable and of repaired photographs.

    Every rank predicts its shard of the photographs, and gets all results. Raises InputError on unreadable photographs
    if ON_BAD_IMAGE=stop.
    """
    started = time.time()
    # torch takes seconds to import, so it comes after the checks; torchvision too, while photographs are decoded.
    import torch

    from toolkit.data.disk_cache import open_store
    from toolkit.data.photo_file import Reading

    runtime, shard, reading = ensemble.runtime, distributed.shard(paths), Reading.of(config)
    unreadable, repaired, probabilities = {}, {}, {}
    for framing, runs in ensemble.by_framing().items():
        with open_store(shard, framing, config.cache_gib, config.cache_dir, reading) as store:
            for run in runs:
                net = runtime.load(run)
                if not probabilities:
                    say(f"running on {runtime}")
                if runtime.machine.device.type == "cpu":  # else decoding and predicting would share its cores
                    refuse_unreadable(config, images, distributed.all_gather_by_row(store.wait()))
                probabilities[run] = ensemble.predict(run, net, store)
            unreadable |= distributed.all_gather_by_row(store.wait())
            repaired |= distributed.all_gather_by_row(store.repaired)
        refuse_unreadable(config, images, unreadable)
        say(f"{store}; {time.time() - started:.1f} s since the start")
    gathered = {
        run: distributed.all_gather_rows(torch.from_numpy(p), len(paths)).numpy() for run, p in probabilities.items()
    }
    return gathered, unreadable, repaired


def refuse_unreadable(config: settings.InferenceSettings, images: list[str], unreadable: dict[int, str]) -> None:
    """Raises InputError that names all unreadable photographs if ON_BAD_IMAGE=stop."""
    if unreadable and config.on_bad_image == "stop":
        named = listed((f"{images[row]} ({reason})" for row, reason in unreadable.items()), most=len(unreadable))
        raise InputError(
            f"SM_CHANNEL_EVAL={config.sm_channel_eval}: {len(unreadable)} of {len(images)} photographs cannot be read, "
            f"nothing is written; mend them, or set ON_BAD_IMAGE=fallback to give them FALLBACK_CLASS (or repair, to "
            f"read those that lack only their end): {named}"
        )


def write(config: settings.InferenceSettings, info: dict, answer: Answer, bad: dict[int, str], report: dict) -> None:
    """Write output.csv and the files beside it. `bad`: {row: reason} of unreadable and repaired photographs."""
    folder, rows, answers = config.sm_output_data_dir, list(bad), {"ans": answer.classes}
    output, probabilities, bad_images = csv_files.as_text({**info, **answers}), None, None
    # A process that is killed between two of these writes leaves files of two calls; this hash reveals it.
    report["output_sha256"] = hashlib.sha256(output.encode()).hexdigest()
    if config.probabilities:
        columns = dict(zip(PROBABILITY_COLUMNS, answer.probabilities.T.round(6), strict=True))
        probabilities = csv_files.as_text({"ImageID": info["ImageID"], **columns, **answers})
    if bad:
        table = {"ImageID": [info["ImageID"][row] for row in rows], "ans": answer.classes[rows]}
        bad_images = csv_files.as_text({**table, "reason": list(bad.values())})
    beside = {"inference.json": files.as_json(report), "probabilities.csv": probabilities, "bad_images.csv": bad_images}
    with files.locked(folder):
        files.write_together(folder, {**beside, "output.csv": output})
    if bad:
        repaired = int(np.isfinite(answer.probabilities[rows]).all(1).sum())
        say(
            f"{len(rows) - repaired} bad photographs got class {config.fallback_class}, {repaired} were repaired; "
            "they are listed in bad_images.csv"
        )
    say(f"written: {(folder / 'output.csv').absolute()} ({len(answer.classes)} rows)")


# SageMaker's handler service finds the handlers in this module by name, and counts their parameters.


def model_fn(model_dir: str) -> handlers.Endpoint:
    """Load the runs that NAME selects in `model_dir`. Settings come from the environment."""
    return handlers.load_endpoint(model_dir, model.load)


input_fn, predict_fn, output_fn = handlers.input_fn, handlers.predict_fn, handlers.output_fn


if __name__ == "__main__":
    console.run(main)
