"""Write the submission: the class of every photograph in info.csv, by a run that train.py made.

SM_CHANNEL_EVAL=<folder> SM_CHANNEL_MODEL=<folder of runs> SM_OUTPUT_DATA_DIR=<folder> NAME=resnet18 python inference.py
"""

import time

import numpy as np
import pandas as pd
import torch

import dataset
import model
from toolkit import console, engine, environment, files, runs, sample, settings
from toolkit.console import InputError, listed, say
from toolkit.device import choose
from toolkit.images import Store
from toolkit.labels import PROBABILITY_COLUMNS


def main(argv: list[str]) -> None:
    config, _ = environment.read(settings.InferenceSettings, argv)
    files.make_folder(config.sm_output_data_dir, "SM_OUTPUT_DATA_DIR")
    if config.demo:
        sample.ensure(settings.DEMO_DATA)
    machine = choose(config.device, config.precision)
    net, header = load_run(config)
    info, paths = dataset.read_eval(config.sm_channel_eval)
    store, bad = load_photographs(config, info, paths, header["size"])

    started = time.time()
    faces = engine.Faces(store, machine, header["mean"], header["std"])
    net = net.to(machine.device, memory_format=torch.channels_last)
    readable = np.setdiff1d(np.arange(len(paths)), list(bad))
    answers = np.full(len(paths), config.fallback_class)
    chances = np.full((len(paths), len(PROBABILITY_COLUMNS)), np.nan)
    if len(readable):
        logits = engine.predict(net, faces, readable, config.batch_size)
        answers[readable] = logits.argmax(1).numpy()
        chances[readable] = logits.double().softmax(1).numpy()
    say(f"predicted {len(readable)} photographs in {time.time() - started:.1f} s on {machine}")
    write(config, info, answers, chances, bad)


def load_run(config: settings.InferenceSettings) -> tuple[torch.nn.Module, dict]:
    """The net and its header; says which run it is, and of newer ones."""
    folder = runs.find(config.sm_channel_model, config.name)
    net, header = model.load(folder / runs.WEIGHTS)
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
    return net, header


def load_photographs(config, info: pd.DataFrame, paths: list[str], size) -> tuple[Store, dict[int, str]]:
    """The photographs, decoded, and the bad ones as {row: reason}; these raise InputError where they stop the run."""
    store = Store(paths, tuple(size), config.cache_gib)
    bad = store.fill()
    if bad and config.on_bad_image == "stop":
        named = listed((f"{info['ImageID'].iloc[row]} ({reason})" for row, reason in bad.items()), most=len(bad))
        raise InputError(
            f"SM_CHANNEL_EVAL={config.sm_channel_eval}: {len(bad)} of {len(paths)} photographs cannot be read, nothing "
            f"is written; mend them, or set ON_BAD_IMAGE=fallback to give them FALLBACK_CLASS: {named}"
        )
    return store, bad


def write(config, info: pd.DataFrame, answers: np.ndarray, chances: np.ndarray, bad: dict[int, str]) -> None:
    """Write output.csv and the files beside it."""
    folder = config.sm_output_data_dir
    for name in ("bad_images.csv", "probabilities.csv"):
        (folder / name).unlink(missing_ok=True)  # of an earlier answer, which this one takes the place of
    if bad:
        rows = {"ImageID": info["ImageID"].iloc[list(bad)], "ans": config.fallback_class, "reason": list(bad.values())}
        files.write_csv(folder / "bad_images.csv", pd.DataFrame(rows))
        say(f"{len(bad)} bad photographs got class {config.fallback_class}; they are listed in bad_images.csv")
    if config.probabilities:
        table = pd.DataFrame(chances, columns=PROBABILITY_COLUMNS).round(6)
        files.write_csv(folder / "probabilities.csv", pd.concat([info[["ImageID"]], table], axis=1))
    files.write_csv(folder / "output.csv", info.assign(ans=answers))
    say(f"written: {(folder / 'output.csv').absolute()} ({len(info)} rows)")


if __name__ == "__main__":
    console.run(main)
