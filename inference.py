"""Write the submission: the class of every photograph in info.csv, by a run that train.py made.

SM_CHANNEL_EVAL=<folder> SM_CHANNEL_MODEL=<folder of runs> SM_OUTPUT_DATA_DIR=<folder> NAME=resnet18 python inference.py
"""

import pathlib
import time

import numpy as np

import dataset
import model
from toolkit import checkpoint, console, environment, files, processes, runs, settings
from toolkit.console import InputError, listed, rank, say
from toolkit.labels import PROBABILITY_COLUMNS


def main(argv: list[str]) -> None:
    config, _ = environment.read(settings.InferenceSettings, argv)
    if processes.idle_host():
        return
    files.make_folder(config.sm_output_data_dir, "SM_OUTPUT_DATA_DIR")
    if config.cache_dir:
        files.make_folder(config.cache_dir, "CACHE_DIR")
    if config.demo:
        from toolkit import sample

        sample.ensure(settings.DEMO_DATA)
    weights, header = find_run(config)
    info, paths = dataset.read_eval(config.sm_channel_eval)
    with processes.joined(config.device):
        logits, bad = predict(config, weights, header, info, paths)
    if rank() == 0:
        write(config, info, logits, bad)


def predict(config: settings.InferenceSettings, weights: pathlib.Path, header: dict, info: dict, paths: list[str]):
    """The logits of all photographs, and which of them are bad, as {row: reason}. Several processes share them out."""
    started = time.time()
    # What takes seconds to import comes only here: torch, and while photographs are decoded, torchvision.
    from toolkit.cache import open_store

    own = processes.own(paths)
    with open_store(own, tuple(header["size"]), config.cache_gib, config.cache_dir) as store:
        from toolkit import device, engine

        machine = device.choose(config.device, config.precision)
        net, _ = model.load(weights)
        say(f"running on {machine}")
        if machine.device.type == "cpu":  # a GPU predicts while others are decoded; a processor cannot do both at once
            refuse_bad_photographs(config, info["ImageID"], processes.rows_of_all(store.wait()))
        faces = engine.Faces(store, machine, header["mean"], header["std"])
        with device.naming_what_saves_memory("BATCH_SIZE"):
            logits = engine.predict(machine.place(net), faces, np.arange(len(own)), config.batch_size)
        bad = processes.rows_of_all(store.wait())
    refuse_bad_photographs(config, info["ImageID"], bad)
    say(f"{store}; predicted them; {time.time() - started:.1f} s since the start")
    return processes.whole(logits, len(paths)), bad


def find_run(config: settings.InferenceSettings) -> tuple[pathlib.Path, dict]:
    """The weights and their header; says which run it is, and of newer ones."""
    folder = runs.find(config.sm_channel_model, config.name)
    weights = folder / runs.WEIGHTS
    header = checkpoint.read_header(weights)
    if config.name not in (None, folder.name, header["run"], header["backbone"]):
        raise InputError(
            f"NAME={config.name}: SM_CHANNEL_MODEL={folder} is itself a run, {header['run']}; leave NAME unset"
        )
    scores, (height, width) = header["scores"], header["size"]
    say(
        f"run {folder.absolute()}: {header['backbone']} at {height}x{width}, "
        f"epoch {scores['epoch']}, validation macro F1 {scores['macro_f1']:.4f}"
    )
    if not (folder / runs.RESULT).exists():
        say("note: this run did not finish, or is still running: these are its best weights so far")
    if others := runs.newer(folder):
        say(f"note: there are newer runs of that name: {listed(others)}; NAME={others[-1]} takes the last")
    return weights, header


def refuse_bad_photographs(config: settings.InferenceSettings, images: list[str], bad: dict[int, str]) -> None:
    """Raises InputError that names all bad photographs, unless they are to get FALLBACK_CLASS."""
    if bad and config.on_bad_image == "stop":
        named = listed((f"{images[row]} ({reason})" for row, reason in bad.items()), most=len(bad))
        raise InputError(
            f"SM_CHANNEL_EVAL={config.sm_channel_eval}: {len(bad)} of {len(images)} photographs cannot be read, "
            f"nothing is written; mend them, or set ON_BAD_IMAGE=fallback to give them FALLBACK_CLASS: {named}"
        )


def write(config: settings.InferenceSettings, info: dict[str, list[str]], logits, bad: dict[int, str]) -> None:
    """Write output.csv and the files beside it."""
    with files.locked(config.sm_output_data_dir):
        write_all(config, info, logits, bad)


def write_all(config: settings.InferenceSettings, info: dict[str, list[str]], logits, bad: dict[int, str]) -> None:
    folder, rows = config.sm_output_data_dir, list(bad)
    for name in ("bad_images.csv", "probabilities.csv"):
        (folder / name).unlink(missing_ok=True)  # of an earlier answer, which this one takes the place of
    answers = logits.argmax(1)
    answers[rows] = config.fallback_class
    if bad:
        images = [info["ImageID"][row] for row in rows]
        table = {"ImageID": images, "ans": [config.fallback_class] * len(bad), "reason": list(bad.values())}
        files.write_csv(folder / "bad_images.csv", table)
        say(f"{len(bad)} bad photographs got class {config.fallback_class}; they are listed in bad_images.csv")
    if config.probabilities:
        chances = logits.double().softmax(1).numpy().round(6)
        chances[rows] = np.nan
        columns = dict(zip(PROBABILITY_COLUMNS, chances.T, strict=True))
        files.write_csv(folder / "probabilities.csv", {"ImageID": info["ImageID"], **columns})
    files.write_csv(folder / "output.csv", {**info, "ans": answers})
    say(f"written: {(folder / 'output.csv').absolute()} ({len(answers)} rows)")


if __name__ == "__main__":
    console.run(main)
