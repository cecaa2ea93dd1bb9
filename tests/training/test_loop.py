"""Which epoch is kept, and what the loss of a run is made of."""

import copy
import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Async, from_scratch
from safetensors import safe_open
from torch import nn

import dataset
import loss
import train
from toolkit.data.framing import Framing
from toolkit.data.loader import Loader, split_into_batches
from toolkit.data.split import Split, held_out_people, split_by_person, without_border_ages
from toolkit.runs import folders
from toolkit.runs.artefacts import Validation
from toolkit.runs.checkpoint import Checkpoints
from toolkit.runs.weights import WEIGHTS, Header
from toolkit.scoring import metrics
from toolkit.scoring.decision import Decision
from toolkit.scoring.prior_correction import PriorCorrection
from toolkit.system import device
from toolkit.system.console import InputError
from toolkit.training import loop
from toolkit.training.checkpointer import Checkpointer, Result, best_epoch

EVEN = (1 / 18,) * 18
HEADER = Header("r", "resnet18", "flat", Framing((32, 32)), (0.5,) * 3, (0.25,) * 3)


def train_in(folder, task, model, **given) -> Result:
    """A run in this folder."""
    config = from_scratch(**{"lr": 1e-3, "weight_decay": 0.0, **given})
    checkpoints, rows = Checkpoints(folder), task.validation
    run = folders.Run(folder, checkpoints, checkpoints.load())
    validation = Validation(task.names[rows], task.people.iloc[rows], task.labels[rows].numpy())
    checkpointer = Checkpointer(run, {}, HEADER, validation, config.checkpoint_seconds)
    return loop.train(config, model, task, checkpointer)


def linear_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 18))


def fit(task, folder, **given) -> dict:
    """The kept epoch's row of history.csv."""
    return train_in(folder, task, linear_net(), **{"logit_adjustment": 0.0, **given}).kept


def answers(task, right: list[int]) -> torch.Tensor:
    """Logits that are right about the validation photographs of these classes, and say 4 or 5 to all others."""
    labels = task.labels[task.validation]
    other = torch.where(labels == 4, 5, 4)
    return 10.0 * nn.functional.one_hot(torch.where(torch.isin(labels, torch.tensor(right)), labels, other), 18)


# Masks that are worn are five of seven photographs, so that few classes make a high accuracy, many a high macro F1.
EPOCHS = [[], [6, 7, 8, 9, 10, 11, 12, 13], [0, 1, 2, 3], [6, 7]]


def test_the_best_epoch_is_that_of_macro_f1_not_of_accuracy_nor_the_first_or_the_last(task, tmp_path, monkeypatch):
    outputs = iter([answers(task, right) for right in EPOCHS])
    monkeypatch.setattr(loop, "predict_quickly", lambda net, *_: (net, next(outputs)))
    best = fit(task, tmp_path, epochs=4)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["accuracy"].idxmax() == 2 and history["macro_f1"].idxmax() == 1
    assert best["epoch"] == 2 and best["macro_f1"] == pytest.approx(history["macro_f1"][1])
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        assert json.loads(file.metadata()["scores"])["epoch"] == 2
    validation = pd.read_csv(tmp_path / "validation.csv")
    assert validation["predicted"].tolist() == answers(task, EPOCHS[1]).argmax(1).tolist()  # LOGIT_ADJUSTMENT=0
    assert validation["path"].tolist() == [path.decode() for path in task.names[task.validation]]
    people = validation["person"].astype(str)
    assert all(path.startswith(person) for path, person in zip(validation["path"], people, strict=True))


def all_but(task, *rows: int) -> torch.Tensor:
    """Logits that are right about all validation photographs but these."""
    labels = task.labels[task.validation].clone()
    labels[list(rows)] = (labels[list(rows)] + 1) % 18
    return 10.0 * nn.functional.one_hot(labels, 18)


@pytest.mark.parametrize("stops", [False, True])
def test_the_latest_epoch_that_is_as_good_as_the_best_is_kept(task, tmp_path, monkeypatch, stops):
    """Also by a run that was stopped after its best epoch."""
    given = iter([all_but(task, 1), *([KeyboardInterrupt] * stops), all_but(task, 22), answers(task, [])])

    def predict_quickly(net, *_) -> tuple[nn.Module, torch.Tensor]:
        outputs = next(given)
        if outputs is KeyboardInterrupt:
            raise KeyboardInterrupt
        return net, outputs

    monkeypatch.setattr(loop, "predict_quickly", predict_quickly)
    if stops:
        with pytest.raises(KeyboardInterrupt):
            fit(task, tmp_path, epochs=3)
    kept = fit(task, tmp_path, epochs=3)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["macro_f1"].is_monotonic_decreasing and len(history) == 3
    assert kept["epoch"] == 2 and kept["macro_f1"] == pytest.approx(history["macro_f1"][1])
    predicted = pd.read_csv(tmp_path / "validation.csv")["predicted"]
    assert predicted.tolist() == all_but(task, 22).argmax(1).tolist()


def test_of_a_net_that_gets_better_a_lucky_early_epoch_is_not_kept(tmp_path):
    """With 80 people, once the net improves little, the highest score may well be an early one."""
    chosen, best = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        of_people = rng.choice(6, 80, p=[0.19, 0.18, 0.03, 0.25, 0.28, 0.07])
        labels = (6 * np.array([0, 0, 0, 0, 0, 1, 2]) + of_people[:, None]).ravel()
        people, names = np.repeat(np.arange(80), 7), [b""] * len(labels)
        validation = Validation(names, people, labels)
        checkpointer = Checkpointer(
            folders.Run(tmp_path, Checkpoints(tmp_path), None), {}, HEADER, validation, math.inf
        )
        checkpointer.restore(loop.make_train_state(from_scratch(), nn.Linear(1, 1)))
        for epoch in range(1, 11):
            clear = 2.5 - 1.5 * math.exp(-epoch / 2)
            evidence = clear * np.eye(18)[labels] + rng.normal(0, 1, (80, 1, 18)).repeat(7, 1).reshape(-1, 18)
            outputs, decision = torch.from_numpy(evidence), Decision(1.0, 0.0, PriorCorrection(EVEN, EVEN))
            macro_f1 = metrics.headline_scores(labels, decision.classes(evidence))["macro_f1"]
            checkpointer.end_epoch({"epoch": epoch, "macro_f1": macro_f1}, outputs, decision, is_last=True)
        chosen.append(checkpointer.checkpoint.kept_epoch)
        best.append(best_epoch(checkpointer.checkpoint.history))
    assert min(best) <= 6 and min(chosen) >= 8 and sum(chosen) >= sum(best) + 6, (best, chosen)


@pytest.mark.parametrize(("value", "what"), [(math.nan, "logits"), (1e38, "losses")])
def test_validation_that_is_no_number_is_said_in_one_line_and_no_epoch_ends_with_it(
    task, tmp_path, monkeypatch, value, what
):
    """With LR=1e4 and sgd, all training losses may be finite while the net's outputs are not."""
    outputs = torch.eye(18).mul(value)[task.labels[task.validation] - 1]
    monkeypatch.setattr(loop, "predict_quickly", lambda net, *_: (net, outputs))
    with pytest.raises(InputError, match=f"epoch 1: expected finite {what} .* diverged.* lower LR"):
        fit(task, tmp_path, epochs=2)
    assert not (tmp_path / "history.csv").exists() and Checkpoints(tmp_path).load() is None


def test_patience_counts_the_epochs_since_the_best(task, tmp_path, monkeypatch):
    outputs = iter([answers(task, right) for right in (EPOCHS[1], EPOCHS[0], EPOCHS[0], EPOCHS[1])])
    monkeypatch.setattr(loop, "predict_quickly", lambda net, *_: (net, next(outputs)))
    assert fit(task, tmp_path, epochs=9, patience=2)["epoch"] == 1
    assert len(pd.read_csv(tmp_path / "history.csv")) == 3


def test_learning_rates_are_those_of_the_whole_run(task, tmp_path, monkeypatch):
    recipes = []

    def spy(net, optimizer, given, recipe, epoch, *progress):
        recipes.append(recipe)
        assert given is task
        return 1.0

    monkeypatch.setattr(loop, "train_one_epoch", spy)
    fit(task, tmp_path, epochs=2, batch_size=8, warmup=0.5)
    steps = 2 * len(split_into_batches(task.train, 8))
    rates = [recipes[0].learning_rate(step) for step in range(steps)]
    assert int(np.argmax(rates)) == steps // 2 and max(rates) == 1e-3 and rates[-1] < 1e-4


def test_no_state_is_saved_once_a_step_was_not_finite(task, tmp_path):
    loader = copy.copy(task.loader)
    loader.machine = Async(loader.machine.device, loader.machine.precision)
    calls = iter(range(100))

    def criterion(logits, labels):
        value = loss.cross_entropy(logits, labels)
        return value * math.inf if next(calls) == 2 else value

    with pytest.raises(InputError, match="epoch 1, step 3 of"):
        broken = dataclasses.replace(task, loader=loader, criterion=criterion)
        fit(broken, tmp_path, epochs=2, batch_size=8, checkpoint_seconds=0)
    state = Checkpoints(tmp_path).load()
    assert state.steps == (0, 2) and np.isfinite(state.losses).all()
    assert all(value.isfinite().all() for value in state.tensors.values())


def test_the_only_epoch_is_saved_so_that_a_run_stopped_before_its_report_goes_on(task, tmp_path):
    fit(task, tmp_path, epochs=1)
    assert Checkpoints(tmp_path).load().epoch == 1


class Hungry(nn.Module):
    """Runs out of memory on more than `most` photographs in a forward pass with gradients, after `free_calls` calls."""

    def __init__(self, most: int, free_calls: int = 0):
        super().__init__()
        layers = nn.Conv2d(3, 3, 1), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 18)
        self.net, self.most, self.free_calls = nn.Sequential(*layers), most, free_calls

    def forward(self, photographs):
        self.free_calls -= 1
        if self.free_calls < 0 and torch.is_grad_enabled() and len(photographs) > self.most:
            torch.empty(2**46)  # no machine has 256 TiB
        return self.net(photographs)


def test_out_of_memory_before_the_first_update_halves_what_is_taken_at_once(task, tmp_path, capsys):
    for folder, net in (("enough", Hungry(32)), ("little", Hungry(9))):
        (tmp_path / folder).mkdir()
        for weight in net.parameters():
            nn.init.constant_(weight, 0.01 * weight.ndim)
        train_in(tmp_path / folder, task, net, epochs=2, batch_size=32)
    printed = capsys.readouterr().out
    assert "takes its 32 photographs 16 at a time" in printed and "32 photographs 8 at a time" in printed
    histories = [pd.read_csv(tmp_path / folder / "history.csv") for folder in ("enough", "little")]
    pd.testing.assert_frame_equal(*histories, rtol=1e-5)


def test_out_of_memory_later_on_says_what_to_lower(task, tmp_path):
    with pytest.raises(InputError, match="out of memory: lower MICRO_BATCH_SIZE, BATCH_SIZE or SIZE.*allocate"):
        train_in(tmp_path, task, Hungry(9, free_calls=2), epochs=2, batch_size=32)


def test_a_batch_too_small_for_its_processes_is_refused(task, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = from_scratch(lr=1e-3, weight_decay=0.0, batch_size=3)
    with pytest.raises(InputError, match="BATCH_SIZE=3: expected 2 photographs a step for each of 2 processes"):
        loop.train(config, nn.Linear(3, 18), task, None)


def test_class_weights_come_from_the_training_side(task, drawn):
    table, _ = dataset.read_faces(drawn.train)
    config = from_scratch(class_weights="balanced", loss="label_smoothing", smoothing=0.3)
    made = train.make_task(config, train.Data(table), Split(task.train, task.validation), task.loader)
    of_classes = made.criterion
    labels = dataset.labels(table)
    counts = np.bincount(labels[task.train], minlength=18)
    assert (counts != np.bincount(labels[task.validation], minlength=18)).any()
    torch.testing.assert_close(of_classes.keywords["weight"], loss.class_weights(torch.from_numpy(counts), "balanced"))
    assert of_classes.func is loss.label_smoothing and of_classes.keywords["smoothing"] == 0.3
    assert made.prior_correction.smoothing == 0.3


def test_priors_are_those_of_all_people_and_sampled_priors_those_of_what_the_model_learns_from(drawn):
    """Whatever BORDER_AGES leaves out or softens, people's priors do not change."""
    table, _ = dataset.read_faces(drawn.train)
    table.loc[table["age"] == 1, "years"] = 58.0
    sides = split_by_person(table, held_out_people(table, 0.5, 0, 0, seed=0))
    counts = np.bincount(dataset.labels(table)[sides.train], minlength=18)
    ages = {}
    for how in ("keep", "soften", "leave_out"):
        config = from_scratch(border_ages=how, class_weights="none")
        loader = SimpleNamespace(machine=device.choose("cpu", "fp32"))
        used = without_border_ages(table, sides) if how == "leave_out" else sides
        correction = train.make_task(config, train.Data(table), used, loader).prior_correction
        np.testing.assert_allclose(correction.priors, counts / counts.sum())
        ages[how] = np.reshape(correction.sampled_priors, (6, 3)).sum(0)
    _, middle, old = np.reshape(counts / counts.sum(), (6, 3)).sum(0)
    np.testing.assert_allclose(ages["keep"][1:], (middle, old))
    assert ages["soften"][2] == pytest.approx(old + middle * 0.5 * math.erfc(1.5 / 2 / math.sqrt(2)), rel=1e-5)
    np.testing.assert_allclose(ages["leave_out"][1:], (0, old / (1 - middle)))


def test_classes_are_weighed_unless_another_setting_sees_to_rare_ones():
    assert from_scratch().class_weights == from_scratch(loss="cross_entropy").class_weights == "sqrt"
    for given in ({"head": "factored"}, {"sampler": "balanced"}, {"loss": "logit_adjusted"}, {"loss": "focal"}):
        assert from_scratch(**given).class_weights == "none"
    assert from_scratch(loss="logit_adjusted", class_weights="balanced").class_weights == "balanced"


def test_close_calls_of_validation_are_close_by_the_decision_that_is_fitted_on_it(task, monkeypatch):
    """Another temperature has other close calls, which inference.py would decide differently."""
    net = linear_net()
    nn.init.normal_(net[2].weight, std=4.0)  # far too sure, so that the temperature is high
    recompute, seen = loop.recompute_close_calls, []
    monkeypatch.setattr(loop, "recompute_close_calls", lambda *given: seen.append(given[-1]) or recompute(*given))
    machine = device.Machine(torch.device("cpu"), torch.bfloat16)
    task = dataclasses.replace(task, loader=Loader(task.loader.store, machine, (0.5,) * 3, (0.25,) * 3))
    found = loop.evaluate(net, task, loop.make_recipe(from_scratch(), 5), 0, 0.5)
    logits = found.outputs.double().numpy()
    assert found.decision.temperature > 2
    (adjusted,) = seen
    np.testing.assert_array_equal(adjusted(logits), found.decision.adjusted(logits))


def test_the_loss_of_validation_is_that_of_all_its_photographs_at_once(task):
    labels = task.labels[task.validation]
    logits = torch.randn(len(labels), 18, generator=torch.Generator().manual_seed(0))
    _, scores, decision = loop.score(logits, dataclasses.replace(task, criterion=loss.f1), loop.fit(logits, task, 0.5))
    assert scores["val_loss"] == pytest.approx(loss.f1(logits, labels).item())
    assert scores["accuracy"] == pytest.approx((decision.classes(logits.numpy()) == labels.numpy()).mean())
