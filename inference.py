"""Write the submission: the class of every photograph in info.csv, by one run or several that train.py made.

SM_CHANNEL_EVAL=<folder> SM_CHANNEL_MODEL=<folder of runs> SM_OUTPUT_DATA_DIR=<folder> NAME=resnet18 python inference.py

It is also the module that SageMaker asks to answer requests: see `model_fn` and the functions after it.
"""

from __future__ import annotations

import pathlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import dataset
import model
from toolkit.config import extras, settings, sources
from toolkit.labels import CLASSES, PROBABILITY_COLUMNS
from toolkit.models import onnx_file
from toolkit.runs import checkpoint, folders
from toolkit.serving import model_archive
from toolkit.system import console, distributed, files, world
from toolkit.system.console import InputError, listed, say

if TYPE_CHECKING:
    from torch import nn

    from toolkit.system.device import Machine

BESIDE = ("inference.json", "bad_images.csv", "probabilities.csv")  # what lies beside output.csv


def main(argv: list[str]) -> None:
    config, _ = sources.read(settings.InferenceSettings, argv)
    if distributed.is_idle_host():
        return
    files.make_folder(config.sm_output_data_dir, "SM_OUTPUT_DATA_DIR")
    if config.cache_dir:
        files.make_folder(config.cache_dir, "CACHE_DIR")
    sources.ensure_drawn_faces(config)
    with model_archive.unpacked(config.sm_channel_model) as place:
        headers = find_runs(config.model_copy(update={"sm_channel_model": place}))
        refuse_what_does_not_fit(config, headers)
        info, paths = dataset.read_eval(config.sm_channel_eval)
        with distributed.joined("cpu" if config.runtime == "onnx" else config.device):
            probabilities, bad = predict(config, headers, info, paths)
    if world.rank() == 0:
        write(config, info, bad, *decide(config, headers, probabilities, list(bad)))


def find_runs(config: settings.InferenceSettings) -> dict[pathlib.Path, dict]:
    """The folder of each run that NAME means, and the header of its net. Says which they are, and of newer ones."""
    if config.runtime == "onnx":
        extras.need("RUNTIME=onnx", "onnxruntime")
        return folders.named(config.sm_channel_model, config.name, folders.EXPORTED, onnx_file.read_header)
    return folders.named(config.sm_channel_model, config.name, folders.WEIGHTS, checkpoint.read_header)


def refuse_what_does_not_fit(config: settings.InferenceSettings, headers: dict[pathlib.Path, dict]) -> None:
    """Raises InputError where a setting asks of these runs what they cannot give."""
    flat = [folder.name for folder, header in headers.items() if header["head"] == "flat"]
    if config.old_from is not None and flat:
        raise InputError(
            f"OLD_FROM={config.old_from}: expected runs of HEAD=factored, which tell single years of age; found "
            f"HEAD=flat in {listed(flat)}; leave OLD_FROM unset, or train with HEAD=factored"
        )
    if "ensemble" in config.model_fields_set and len(headers) == 1:
        raise InputError(f"ENSEMBLE={config.ensemble}: has no effect with one run; remove it, or name several in NAME")


def predict(config: settings.InferenceSettings, headers: dict, info: dict, paths: list[str]):
    """The calibrated probabilities of each run, and which photographs are bad, as {row: reason}.

    Probabilities are float64, shape (runs, photographs, 18). Several processes share the photographs out.
    """
    started = time.time()
    # What takes seconds to import comes only here: torch, and while photographs are decoded, torchvision.
    from toolkit.data.disk_cache import open_store

    own, bad, found = distributed.shard(paths), {}, {}
    for size in dict.fromkeys(tuple(header["size"]) for header in headers.values()):  # decoded once for each size
        with open_store(own, size, config.cache_gib, config.cache_dir) as store:
            machine = machine_of(config)
            for folder, header in headers.items():
                if tuple(header["size"]) == size:
                    net = load_net(config, folder)
                    if not found:
                        say(f"running on {machine}{f', {net}' if config.runtime == 'onnx' else ''}")
                    if machine.device.type == "cpu":  # which cannot predict and decode at once, as a GPU does
                        refuse_bad_photographs(config, info["ImageID"], distributed.all_gather_by_row(store.wait()))
                    found[folder] = probabilities_of(config, net, header, store, machine)
            bad |= distributed.all_gather_by_row(store.wait())
        refuse_bad_photographs(config, info["ImageID"], bad)
        say(f"{store}; {time.time() - started:.1f} s since the start")
    whole = [distributed.all_gather_rows(found[folder], len(paths)).numpy() for folder in headers]
    return np.stack(whole), bad


def machine_of(config: settings.InferenceSettings):
    """Where and how nets run."""
    from toolkit.system import device

    return device.choose("cpu", "fp32") if config.runtime == "onnx" else device.choose(config.device, config.precision)


def load_net(config: settings.InferenceSettings, folder: pathlib.Path):
    """The net of a run, as RUNTIME says: an exported.Net, or a module."""
    return (
        onnx_file.Net(folder / folders.EXPORTED)
        if config.runtime == "onnx"
        else model.load(folder / folders.WEIGHTS)[0]
    )


def probabilities_of(config: settings.InferenceSettings, net, header: dict, store, machine):
    """What one run says of the photographs in the store: a tensor, float64, shape (n, 18)."""
    import torch

    from toolkit.models import factored_head
    from toolkit.system import device
    from toolkit.training import step

    if config.runtime == "onnx":  # which prepares photographs and calibrates probabilities itself
        batch_size = config.batch_size or machine.batch_for_prediction(store.size)
        return torch.from_numpy(net.predict(store, batch_size, mirrored=config.tta))
    decision = decision_of(config, header)
    faces = step.Faces(store, machine, header["mean"], header["std"])
    net = machine.place(net)
    nets = [net, step.Mirrored(net)] if config.tta else [net]
    offset = torch.from_numpy(decision.offset()).float()
    found = []
    with device.naming_what_saves_memory("BATCH_SIZE"):
        for each in nets:
            outputs = step.predict(each, faces, np.arange(len(store)), config.batch_size, offset)
            if config.old_from is not None:
                outputs = factored_head.move_old(outputs, config.old_from)
            found.append(decision.probabilities(outputs[:, :CLASSES].numpy()))
    return torch.from_numpy(np.mean(found, 0))


def decision_of(config: settings.InferenceSettings, header: dict):
    """How a run's logits become classes, its border of the old moved to OLD_FROM."""
    from toolkit.scoring.decision import Decision

    decision = Decision.of_header(header["decision"])
    return decision if config.old_from is None else decision.with_old_from(config.old_from)


def decide(config: settings.InferenceSettings, headers: dict, probabilities: np.ndarray, bad: list[int]):
    """The class and the probabilities of each photograph, and what inference.json says of how they came about."""
    from toolkit.scoring import decision

    decisions = [decision_of(config, header) for header in headers.values()]
    good = np.setdiff1d(np.arange(probabilities.shape[1]), bad)
    for folder, row in zip(headers, np.isfinite(probabilities[:, good]).all((1, 2)), strict=True):
        if not row:
            raise InputError(
                f"run {folder.absolute()}: expected finite numbers of its net, found others; train it anew"
            )
    answers, meant, found = decision.decide_together(
        decisions, probabilities[:, good], config.ensemble, config.adapt_priors
    )
    for line in found:
        say(str(line))
    chances = np.full(probabilities.shape[1:], np.nan)
    chances[good] = meant
    classes = np.full(len(chances), config.fallback_class)
    classes[good] = answers
    report = {
        "runs": {str(folder.absolute()): header["decision"] | header["scores"] for folder, header in headers.items()},
        "settings": config.model_dump(mode="json"),
        "shares": [line.as_json() for line in found],
    }
    return classes, chances, report


def refuse_bad_photographs(config: settings.InferenceSettings, images: list[str], bad: dict[int, str]) -> None:
    """Raises InputError that names all bad photographs, unless they are to get FALLBACK_CLASS."""
    if bad and config.on_bad_image == "stop":
        named = listed((f"{images[row]} ({reason})" for row, reason in bad.items()), most=len(bad))
        raise InputError(
            f"SM_CHANNEL_EVAL={config.sm_channel_eval}: {len(bad)} of {len(images)} photographs cannot be read, "
            f"nothing is written; mend them, or set ON_BAD_IMAGE=fallback to give them FALLBACK_CLASS: {named}"
        )


def write(config: settings.InferenceSettings, info: dict, bad: dict[int, str], answers, probabilities, report) -> None:
    """Write output.csv and the files beside it."""
    with files.locked(config.sm_output_data_dir):
        folder = config.sm_output_data_dir
        for name in BESIDE:
            (folder / name).unlink(missing_ok=True)  # of an earlier answer, which this one takes the place of
        if bad:
            images = [info["ImageID"][row] for row in bad]
            table = {"ImageID": images, "ans": [config.fallback_class] * len(bad), "reason": list(bad.values())}
            files.write_csv(folder / "bad_images.csv", table)
            say(f"{len(bad)} bad photographs got class {config.fallback_class}; they are listed in bad_images.csv")
        if config.probabilities:
            columns = dict(zip(PROBABILITY_COLUMNS, probabilities.T.round(6), strict=True))
            files.write_csv(folder / "probabilities.csv", {"ImageID": info["ImageID"], **columns, "ans": answers})
        files.write_json(folder / "inference.json", report)
        files.write_csv(folder / "output.csv", {**info, "ans": answers})
        say(f"written: {(folder / 'output.csv').absolute()} ({len(answers)} rows)")


@dataclass(frozen=True)
class Loaded:
    """Runs that wait for photographs."""

    config: settings.ServingSettings
    headers: dict[pathlib.Path, dict]
    nets: dict[pathlib.Path, nn.Module | onnx_file.Net]
    machine: Machine


def model_fn(model_dir: str) -> Loaded:
    """The runs that NAME means in the folder of a model. Settings come from the environment, as ever."""
    config, _ = sources.read(settings.ServingSettings, ["--sm_channel_model", model_dir])
    headers = find_runs(config)
    refuse_what_does_not_fit(config, headers)
    machine, nets = machine_of(config), {folder: load_net(config, folder) for folder in headers}
    if config.runtime == "torch":
        import torch

        from toolkit.models import fuse_batch_norm

        for folder, header in headers.items():  # once, as it takes five times as long as to predict one photograph
            net = machine.place(nets[folder]).eval()
            nets[folder] = fuse_batch_norm.fold(net, torch.rand(1, 3, *header["size"], device=machine.device))
    say(f"running on {machine}")
    return Loaded(config, headers, nets, machine)


def input_fn(body: bytes | str, content_type: str | None) -> list:
    """The photographs of a request, each as the bytes of its file: toolkit/serving.py says what a request may be."""
    from toolkit.serving import requests

    with requests.told_to_the_client():
        return requests.photographs(body, content_type)


def predict_fn(photographs: list, loaded: Loaded) -> list[dict]:
    """A record for each photograph, as the script would answer for it with ADAPT_PRIORS=false."""
    from toolkit.serving import requests

    config, bad, found = loaded.config, {}, {}
    for size in {tuple(header["size"]) for header in loaded.headers.values()}:
        store = requests.Received(photographs, size)
        bad |= store.fill()
        for folder, header in loaded.headers.items():
            if tuple(header["size"]) == size:
                found[folder] = probabilities_of(config, loaded.nets[folder], header, store, loaded.machine).numpy()
    classes, probabilities, _ = decide(
        config, loaded.headers, np.stack([found[folder] for folder in loaded.headers]), list(bad)
    )
    with requests.told_to_the_client():
        return requests.records(classes, probabilities, bad)


def output_fn(prediction: list[dict], accept: str | None) -> tuple[str, str]:
    """The body of the answer, and its content type."""
    from toolkit.serving import requests

    with requests.told_to_the_client():
        return requests.answer(prediction, accept)


if __name__ == "__main__":
    console.run(main)
