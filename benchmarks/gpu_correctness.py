"""Is what was written and tested on CPUs right on a GPU? Parts of gpu.py.

A line tells how far the GPU is off, and "ok" whether that is within what is allowed. What is trained is trained by the
project's own functions from settings, on drawn photographs, in small sizes, so that the CPU is quick too.
"""

import contextlib
import dataclasses
import io
import itertools
import math
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from gpu_throughput import no_tf32, seconds_to
from throughput import Bench
from torch import nn

import dataset
import export as export_script
import inference
import loss
import model
import train
from toolkit.config import defaults, settings, sources
from toolkit.data.loader import Loader, split_into_batches
from toolkit.labels import CLASSES
from toolkit.models.predict import PROBE, SAMPLE, predict
from toolkit.runs import tensor_file
from toolkit.runs.weights import WEIGHTS
from toolkit.system import console
from toolkit.system.console import InputError
from toolkit.system.device import Machine
from toolkit.training import loop
from toolkit.training.step import Recipe, train_one_epoch
from toolkit.training.task import Task
from toolkit.training.train_state import TrainState

SMALL = {"size": "64x48", "batch_size": 16, "epochs": 2, "weights": "none"}
CASES = {  # settings that are one epoch's, in float32
    "an epoch": {},
    "OPTIMIZER=adamw": {"optimizer": "adamw", "lr": 1e-6},
    "EMA": {"ema": True},
    "MICRO_BATCH_SIZE": {"micro_batch_size": 4},
    "LOSS=f1": {"loss": "f1"},
    "MIX=mixup": {"mix": "mixup"},
    "HEAD=factored": {"head": "factored"},
    "AUGMENT=strong": {"augment": "strong"},
}
# At learning rates of practice an epoch of resnet18 is chaotic: with another memory layout on the same CPU its update
# is off by 21 % after 7 steps. At this one it is off by 0.4 %, and its losses by 5e-7.
EPOCH = {"lr": 1e-4}
STEP_TOLERANCE = {"loss_off": 1e-5, "update_off": 1e-3}
EPOCH_TOLERANCE = {"loss_off": 3e-5, "update_off": 3e-2}  # on an H200 at most 1.02e-5 (MICRO_BATCH_SIZE) and 0.8e-2
MEMORY_GIB = 1.5  # a quarter of what a step of resnet18 with 224 photographs of 224x168 takes


class Prepared(NamedTuple):
    state: TrainState
    task: Task
    recipe: Recipe


def read(**values) -> settings.TrainSettings:
    words = sources.as_flags({"sm_model_dir": "unused", **values})
    return defaults.resolve(*sources.read(settings.TrainSettings, words, train.CHOICES))[0]


def prepared(**values) -> Prepared:
    """What train.py makes of these settings before it trains."""
    config = read(**values)
    data = train.read_data(config)
    config, _ = train.crop_to_faces(config, {}, data.table)
    with train.decoded(config, data) as store:
        backbone = train.build_model(config)
        assert not store.wait()
    task = train.make_task(config, data, data.splits[0], train.make_loader(store, backbone))
    state = loop.make_train_state(config, backbone.model)
    return Prepared(state, task, loop.make_recipe(config, len(split_into_batches(task.train, config.batch_size))))


def of_few(setup, **values) -> dict:
    name = setup.scale.nets[0]
    return {"sm_channel_train": setup.scratch / "few", "name": name, "device": setup.device, **SMALL, **values}


def steps(setup) -> None:
    """A step, and epochs, on the GPU and on the CPU."""

    def compared(tolerance: dict, most: int | None = None, **values) -> dict:
        values, exact = {"optimizer": "sgd", **values}, {"precision": "fp32"}
        on_cpu = learned(prepared(**of_few(setup, **{**values, **exact, "device": "cpu"})), most)
        on_gpu = learned(prepared(**of_few(setup, **{**exact, **values})), most)
        found = difference(on_cpu, on_gpu)
        within = all(found[key] <= value for key, value in tolerance.items())
        return {**found, **({"ok": within} if tolerance else {})}

    with no_tf32():
        setup.measure("a step", compared, STEP_TOLERANCE, 16)
        for name, values in CASES.items():
            setup.measure(name, lambda values=values: compared(EPOCH_TOLERANCE, **{**EPOCH, **values}))
    setup.measure("a step with TF32", compared, {}, 16)  # which torch uses in convolutions unless it is told not to
    setup.measure("an epoch in bf16", lambda: compared({}, precision="bf16", **EPOCH))


class Learned(NamedTuple):
    losses: np.ndarray  # of steps
    update: torch.Tensor  # of all weights
    outputs: torch.Tensor  # of validation


def learned(prepared: Prepared, most: int | None) -> Learned:
    """What comes of an epoch, or of its first photographs."""
    state, task, recipe = prepared
    task, seen = dataclasses.replace(task, train=task.train[:most], sampling_weights=None), []

    def after_step(losses: torch.Tensor) -> None:
        seen[:] = [losses]
        if state.ema:
            state.ema.update(state.model, len(losses) - 1)

    before = weights(state.eval_model)
    train_one_epoch(state.model, state.optimizer, task, recipe, 0, after_step=after_step)
    update = weights(state.eval_model) - before
    outputs = loop.evaluate(state.eval_model, task, recipe, 0, 0.5).outputs
    return Learned(seen[0].cpu().double().numpy(), update, outputs)


def weights(net: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().cpu().double().flatten() for weight in net.parameters()])


def difference(one: Learned, other: Learned) -> dict:
    return {
        "steps": len(one.losses),
        "loss_off": float(np.abs(other.losses / one.losses - 1).max()),
        "update_off": float((other.update - one.update).norm() / one.update.norm()),
        "outputs_off": float((other.outputs - one.outputs).abs().max() / one.outputs.std()),
        "other_classes": int((classes(other.outputs) != classes(one.outputs)).sum()),
        "of": len(one.outputs),
    }


def classes(outputs: torch.Tensor) -> torch.Tensor:
    return outputs[:, :CLASSES].argmax(1)


def guard(setup) -> None:
    """The third loss is not a number. That step and those that follow must change neither weights nor moments."""

    def refused(**values) -> dict:
        state, task, recipe = prepared(**of_few(setup, batch_size=8, **values))
        calls, kept = itertools.count(1), []

        def criterion(outputs, targets):
            value = task.criterion(outputs, targets)
            return value * math.nan if next(calls) == 3 else value

        def content() -> list[torch.Tensor]:
            moments = [value for of_weight in state.optimizer.state.values() for value in of_weight.values()]
            return [value.detach().clone() for value in (*state.model.parameters(), *moments) if value is not None]

        def after_step(losses: torch.Tensor) -> None:
            if len(losses) == 2:
                kept[:] = content()

        broken, text = dataclasses.replace(task, criterion=criterion), "nothing was said"
        try:
            train_one_epoch(state.model, state.optimizer, broken, recipe, 0, after_step=after_step)
        except InputError as error:
            text = str(error)
        same = all(torch.equal(one, other) for one, other in zip(kept, content(), strict=True))
        return {"same": same, "ok": same and "step 3 of" in text, "said": text[:60]}

    for values in ({"optimizer": "adamw"}, {"optimizer": "adam"}, {"optimizer": "sgd"}):
        setup.measure(values["optimizer"], lambda values=values: refused(**values))
    setup.measure("adamw in fp32", lambda: refused(precision="fp32"))


def resume(setup) -> None:
    """A run that is stopped in its first epoch and killed in its second, beside one that is not, bit for bit.

    Where they differ, two undisturbed runs tell whether that is the resuming or the GPU's own doing; and the same again
    with torch's deterministic algorithms.
    """
    # Forks of a process that has imported all and computed nothing: a fork has none of OpenMP's threads, and waits for
    # them or crashes.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    values = of_few(setup, size="96x72")
    config = read(**values)
    a_third, each = 0, 0

    def count_steps() -> None:
        nonlocal a_third, each
        if not each:
            each = len(split_into_batches(train.read_data(config).splits[0].train, config.batch_size))
            a_third = max(each // 3, 1)

    def run(name: str, deterministic: bool, lives: list[tuple[int, int] | None]) -> tuple[dict, str]:
        """Weights and history of a run of so many lives; (step, signal) is how one ends."""
        folder = setup.scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        for number, death in enumerate(lives):
            log = setup.scratch / f"{name}-{number}.txt"
            flags = sources.as_flags({**values, "sm_model_dir": folder, "run": "run"})
            process = context.Process(target=live, args=(flags, death, deterministic, log))
            process.start()
            process.join()
            expected = {None: 0, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGKILL: -signal.SIGKILL}
            wanted, found = expected[death and death[1]], process.exitcode
            assert found == wanted, f"life {number + 1} of {name}: expected exit status {wanted}, found {found}"
        (path,) = folder.glob(f"*/{WEIGHTS}")
        return tensor_file.load(path), (path.parent / "history.csv").read_text()

    def compared(deterministic: bool) -> dict:
        count_steps()
        whole, again = run("whole", deterministic, [None]), run("again", deterministic, [None])
        stops = [(a_third, signal.SIGTERM), (each, signal.SIGKILL), None]  # its steps are counted anew in each life
        resumed = run("resumed", deterministic, stops)
        found = {
            "resumed_off": off(whole, resumed), "ok": same(whole, resumed), "twice_off": off(whole, again),
            "twice_ok": same(whole, again),
        }  # fmt: skip
        said = [line for path in setup.scratch.glob("*.warned") for line in path.read_text().splitlines()]
        return {**found, **({"no_deterministic_form": sorted(set(said))} if said else {})}

    setup.measure("as it is", compared, False)
    setup.measure("deterministic", compared, True)


def live(flags: list[str], death: tuple[int, int] | None, deterministic: bool, log: pathlib.Path) -> None:
    """train.py in a process of its own, which gets this signal at this step of its life."""
    calls = itertools.count(1)

    def deadly(of_batch: Callable) -> Callable:
        def criterion(logits, labels, **options):
            value = of_batch(logits, labels, **options)
            if value.requires_grad and death and next(calls) == death[0]:
                os.kill(os.getpid(), death[1])
            return value

        return criterion

    loss.LOSSES = {name: deadly(of_batch) for name, of_batch in loss.LOSSES.items()}
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True, warn_only=True)
    sys.argv = ["train.py", *flags]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            console.run(train.main)
        finally:
            said = {str(one.message).split(" does not")[0] for one in caught if "determinis" in str(one.message)}
            log.with_suffix(".warned").write_text("\n".join(said))


def off(one: tuple[dict, str], other: tuple[dict, str]) -> float:
    """The largest difference of a weight."""
    return max(float((value.double() - other[0][name].double()).abs().max()) for name, value in one[0].items())


def same(one: tuple[dict, str], other: tuple[dict, str]) -> bool:
    return one[1] == other[1] and all(torch.equal(value, other[0][name]) for name, value in one[0].items())


def rescue(setup) -> None:
    """Classes by bf16 with close calls predicted again, and by float32 as torch has it (TF32), beside exact float32."""

    def compared(is_trained: bool) -> dict:
        bench = Bench(setup.scale.nets[0], setup.scale.small, setup.scratch, most=2000, where=setup.device)
        where = bench.machine.device
        net = bench.trained() if is_trained else bench.untrained.to(where, memory_format=torch.channels_last).eval()
        loaders = {}
        for precision in (torch.bfloat16, torch.float32):
            loaders[precision] = Loader(bench.loader.store, Machine(where, precision), model.MEAN, model.STD)
            loaders[precision].resident = bench.loader.resident
        found, seconds = {}, {}

        def answer(name: str, precision: torch.dtype) -> None:
            def work() -> None:
                found[name] = classes(predict(net, loaders[precision], bench.everything))

            work()
            seconds[name] = seconds_to(setup, work)

        with no_tf32():
            answer("exact", torch.float32)
            answer("bf16, rescued without TF32", torch.bfloat16)
        answer("float32 with TF32", torch.float32)
        answer("bf16, rescued with TF32", torch.bfloat16)
        loads, load = [], loaders[torch.bfloat16].load
        loaders[torch.bfloat16].load = lambda batches: (loads.append(sum(map(len, batches))), load(batches))[1]
        predict(net, loaders[torch.bfloat16], bench.everything)
        others = {name: int((value != found["exact"]).sum()) for name, value in found.items()}
        again = sum(loads) - len(bench.everything) - PROBE - SAMPLE
        return {"of": len(bench.everything), "other_classes": others, "close_calls": again, "seconds": seconds}

    setup.measure("trained", compared, True)
    setup.measure("untrained", compared, False)


def memory(setup) -> None:
    """A batch that does not fit: training must go on with microbatches, and say so."""

    def limited() -> dict:
        if setup.device != "cuda":
            return {"skipped": "only a GPU can be given less memory than it has"}
        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(MEMORY_GIB / total)
        values = {"size": "224x168", "batch_size": 224, "epochs": 1, "sm_model_dir": setup.scratch / "memory"}
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            train.main(sources.as_flags(of_few(setup, **values)))
        print(said.getvalue())
        smaller = re.findall(r"photographs (\d+) at a time", said.getvalue())
        return {"microbatches": smaller, "ok": bool(smaller), "peak_gib": torch.cuda.max_memory_allocated() / 2**30}

    setup.measure("too large a batch", limited)


def export(setup) -> None:
    """A run that was trained on the GPU: its classes there, on the CPU, and by ONNX."""

    def answers() -> dict:
        runs, folder = setup.scratch / "exported", setup.scratch / "few"
        train.main(sources.as_flags(of_few(setup, sm_model_dir=runs, run="run")))
        export_script.main(sources.as_flags({"sm_channel_model": runs, "sm_channel_train": folder}))
        names = dataset.paths(dataset.read_faces(folder)[0]).astype(str)
        (folder / "info.csv").write_text("ImageID,ans\n" + "".join(f"{name},0\n" for name in names))

        def answer(**values) -> inference.Predictions:
            shared = {"sm_channel_eval": folder, "sm_channel_model": runs, "sm_output_data_dir": setup.scratch / "out"}
            return inference.main(sources.as_flags({**shared, **values}))

        here = answer(device=setup.device)
        others = {"CPU": answer(device="cpu"), "ONNX": answer(runtime="onnx")}
        differ = {name: int((other.classes != here.classes).sum()) for name, other in others.items()}
        most = {name: float(np.abs(other.probabilities - here.probabilities).max()) for name, other in others.items()}
        return {"of": len(names), "other_classes": differ, "probabilities_off": most}

    setup.measure("classes", answers)
