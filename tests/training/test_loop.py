"""Which epoch is kept, and what the loss of a run is made of."""

import copy
import dataclasses
import inspect
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch import nn

import dataset
import loss
import train
from toolkit.config.settings import TrainSettings
from toolkit.runs import folders
from toolkit.runs.checkpoint import State, States
from toolkit.system import device
from toolkit.system.console import InputError
from toolkit.training import loop, step

HEADER = {"run": "r", "backbone": "resnet18", "head": "flat", "size": [32, 32], "mean": [0.5] * 3, "std": [0.25] * 3}


def fit(data, folder, criterion=loss.cross_entropy, **given):
    torch.manual_seed(0)
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 18))
    config = TrainSettings(**{"lr": 1e-3, "weight_decay": 0.0, "logit_adjustment": 0.0, **given})
    run = folders.Run(folder, States(folder), None, HEADER)
    learner = loop.make_learner(config, net, [])
    return loop.fit(config, learner, criterion, data, loop.begin(run, {}), run)


def answers(data, right: list[int]) -> torch.Tensor:
    """Logits that are right about the validation photographs of these classes, and say 4 or 5 to all others."""
    labels = data.faces.labels[data.validation]
    other = torch.where(labels == 4, 5, 4)
    return 10.0 * nn.functional.one_hot(torch.where(torch.isin(labels, torch.tensor(right)), labels, other), 18)


# Masks that are worn are five of seven photographs, so that few classes make a high accuracy, many a high macro F1.
EPOCHS = [[], [6, 7, 8, 9, 10, 11, 12, 13], [0, 1, 2, 3], [6, 7]]


def test_the_best_epoch_is_that_of_macro_f1_not_of_accuracy_nor_the_first_or_the_last(data, tmp_path, monkeypatch):
    said = iter([answers(data, right) for right in EPOCHS])
    monkeypatch.setattr(step, "predict", lambda *given: next(said))
    best = fit(data, tmp_path, epochs=4)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["accuracy"].idxmax() == 2 and history["macro_f1"].idxmax() == 1
    assert best["epoch"] == 2 and best["macro_f1"] == pytest.approx(history["macro_f1"][1])
    with safe_open(tmp_path / folders.WEIGHTS, "pt") as file:
        assert json.loads(file.metadata()["scores"])["epoch"] == 2
    validation = pd.read_csv(tmp_path / "validation.csv")
    assert validation["predicted"].tolist() == answers(data, EPOCHS[1]).argmax(1).tolist()  # LOGIT_ADJUSTMENT=0
    assert validation["path"].tolist() == [path.decode() for path in data.paths[data.validation]]
    people = validation["person"].astype(str)
    assert all(path.startswith(person) for path, person in zip(validation["path"], people, strict=True))


def test_patience_counts_the_epochs_since_the_best(data, tmp_path, monkeypatch):
    said = iter([answers(data, right) for right in (EPOCHS[1], EPOCHS[0], EPOCHS[0], EPOCHS[1])])
    monkeypatch.setattr(step, "predict", lambda *given: next(said))
    assert fit(data, tmp_path, epochs=9, patience=2)["epoch"] == 1
    assert len(pd.read_csv(tmp_path / "history.csv")) == 3


def test_learning_rates_are_those_of_the_whole_run(data, tmp_path, monkeypatch):
    recipes = []

    def spy(net, optimizer, recipe, faces, photographs, epoch, *progress):
        recipes.append(recipe)
        assert photographs.tolist() == data.train.tolist()
        return 1.0

    monkeypatch.setattr(step, "train_one_epoch", spy)
    fit(data, tmp_path, epochs=2, batch_size=8, warmup=0.5)
    steps = 2 * len(step.batches(data.train, 8))
    rates = [recipes[0].learning_rate(step) for step in range(steps)]
    assert int(np.argmax(rates)) == steps // 2 and max(rates) == 1e-3 and rates[-1] < 1e-4


class RunsAhead(device.Machine):
    """A processor on which numbers are not read at every step, as on a GPU."""

    runs_ahead = True


def test_no_state_is_saved_once_a_step_was_not_finite(data, tmp_path):
    machine = data.faces.machine
    faces = copy.copy(data.faces)
    faces.machine = RunsAhead(machine.device, machine.precision)
    calls = iter(range(100))

    def criterion(logits, labels):
        value = loss.cross_entropy(logits, labels)
        return value * math.inf if next(calls) == 2 else value

    with pytest.raises(InputError, match="epoch 1, step 3 of"):
        fit(dataclasses.replace(data, faces=faces), tmp_path, criterion, epochs=2, batch_size=8, checkpoint_seconds=0)
    state = States(tmp_path).load()
    assert state.steps == (0, 2) and np.isfinite(state.losses).all()
    assert all(value.isfinite().all() for value in state.tensors.values())


class Hungry(nn.Module):
    """A net that wants more memory than there is for more than so many photographs; of no use, but it learns."""

    def __init__(self, most: int, calls: int = 0):
        super().__init__()
        layers = nn.Conv2d(3, 3, 1), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 18)
        self.net, self.most, self.calls = nn.Sequential(*layers), most, calls

    def forward(self, photographs):
        self.calls -= 1
        learns = self.net[0].weight.requires_grad
        if len(photographs) > self.most and self.calls < 0 and learns and torch.is_grad_enabled() | (self.most < 2):
            torch.empty(2**46)
        return self.net(photographs)


def test_out_of_memory_before_the_first_update_halves_what_is_taken_at_once(data, tmp_path, capsys):
    config = TrainSettings(lr=1e-3, weight_decay=0.0, epochs=2, batch_size=32)
    for folder, net in (("enough", Hungry(32)), ("little", Hungry(9))):
        (tmp_path / folder).mkdir()
        for weight in net.parameters():
            nn.init.constant_(weight, 0.01 * weight.ndim)
        run = folders.Run(tmp_path / folder, States(tmp_path / folder), None, HEADER)
        learner = loop.make_learner(config, net, [])
        loop.fit(config, learner, loss.cross_entropy, data, loop.begin(run, {}), run)
    said = capsys.readouterr().out
    assert "takes its 32 photographs 16 at a time" in said and "32 photographs 8 at a time" in said
    histories = [pd.read_csv(tmp_path / folder / "history.csv") for folder in ("enough", "little")]
    pd.testing.assert_frame_equal(*histories, rtol=1e-5)


def test_out_of_memory_when_frozen_layers_begin_to_learn_halves_it_too(data, tmp_path, capsys):
    config = TrainSettings(lr=1e-3, weight_decay=0.0, epochs=3, batch_size=32, freeze_epochs=1)
    run, net = folders.Run(tmp_path, States(tmp_path), None, HEADER), Hungry(9)
    learner = loop.make_learner(config, net, list(net.net[3].parameters()))
    loop.fit(config, learner, loss.cross_entropy, data, loop.begin(run, {}), run)
    said = capsys.readouterr().out
    assert said.index("epoch   1/3") < said.index("out of memory") < said.index("epoch   2/3")
    assert "32 photographs 8 at a time" in said


def test_out_of_memory_later_on_says_what_to_lower(data, tmp_path):
    config = TrainSettings(lr=1e-3, weight_decay=0.0, epochs=2, batch_size=32)
    run = folders.Run(tmp_path, States(tmp_path), None, HEADER)
    net = Hungry(9, calls=2)
    with pytest.raises(InputError, match="out of memory: lower MICRO_BATCH_SIZE, BATCH_SIZE or SIZE.*allocate"):
        learner = loop.make_learner(config, net, [])
        loop.fit(config, learner, loss.cross_entropy, data, loop.begin(run, {}), run)


def test_a_batch_too_small_for_its_processes_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = TrainSettings(lr=1e-3, weight_decay=0.0, batch_size=3)
    with pytest.raises(InputError, match="BATCH_SIZE=3: expected 2 photographs a step for each of 2 processes"):
        loop.fit(
            config,
            loop.make_learner(config, nn.Linear(3, 18), []),
            loss.cross_entropy,
            data,
            State({}, "now"),
            None,
        )


def test_class_weights_come_from_the_training_side(data, drawn):
    table, _ = dataset.read_faces(drawn.train)
    config = TrainSettings(class_weights="balanced", loss="focal", gamma=3.0)
    sides = dataset.Split(data.train, data.validation)
    faces = train.on_machine(config, table, data.faces.store, data.faces.machine)
    _, criterion = train.data_and_loss(config, table, sides, faces)
    of_classes = inspect.getclosurevars(criterion).nonlocals["loss"]
    labels = dataset.labels(table)
    counts = np.bincount(labels[data.train], minlength=18)
    assert (counts != np.bincount(labels[data.validation], minlength=18)).any()
    torch.testing.assert_close(of_classes.keywords["weight"], loss.class_weights(torch.from_numpy(counts), "balanced"))
    assert of_classes.func is loss.focal and of_classes.keywords["gamma"] == 3.0


def test_shares_are_those_of_all_people_and_shown_is_what_the_net_learns_from(drawn):
    """Whatever BORDER_AGES leaves out or softens: what is common among people does not change by that."""
    table, _ = dataset.read_faces(drawn.train)
    table.loc[table["age"] == 1, "years"] = 58.0
    sides = dataset.split(table, dataset.hold_out(table, 0.5, 0, 0, seed=0))
    counts = np.bincount(dataset.labels(table)[sides.train], minlength=18)
    ages = {}
    for how in ("keep", "soften", "leave_out"):
        config = TrainSettings(border_ages=how, class_weights="none")
        store = SimpleNamespace(paths=dataset.paths(table))
        faces = train.on_machine(config, table, store, device.choose("cpu", "fp32"))
        used = dataset.without_border_ages(table, sides) if how == "leave_out" else sides
        prior = train.data_and_loss(config, table, used, faces)[0].prior
        np.testing.assert_allclose(prior.shares, counts / counts.sum())
        ages[how] = np.reshape(prior.shown, (6, 3)).sum(0)
    _, middle, old = np.reshape(counts / counts.sum(), (6, 3)).sum(0)
    np.testing.assert_allclose(ages["keep"][1:], (middle, old))
    assert ages["soften"][2] == pytest.approx(old + middle * 0.5 * math.erfc(1.5 / 2 / math.sqrt(2)), rel=1e-5)
    np.testing.assert_allclose(ages["leave_out"][1:], (0, old / (1 - middle)))


def test_classes_are_weighed_unless_another_setting_sees_to_rare_ones():
    def resolved(**given) -> TrainSettings:
        return train.with_own_defaults(TrainSettings(**given), dict.fromkeys(TrainSettings.model_fields, "default"))[0]

    assert resolved().class_weights == resolved(loss="cross_entropy").class_weights == "sqrt"
    for given in ({"head": "factored"}, {"sampler": "balanced"}, {"loss": "logit_adjusted"}, {"loss": "focal"}):
        assert resolved(**given).class_weights == "none"
    assert resolved(loss="focal", class_weights="balanced").class_weights == "balanced"


def test_the_loss_of_validation_is_that_of_all_its_photographs_at_once(data):
    labels = data.faces.labels[data.validation]
    logits = torch.randn(len(labels), 18, generator=torch.Generator().manual_seed(0))
    scores, decided = loop.judge(TrainSettings(), loss.f1, logits, data)
    assert scores["val_loss"] == pytest.approx(loss.f1(logits, labels).item())
    assert scores["accuracy"] == pytest.approx((decided.classes(logits.numpy()) == labels.numpy()).mean())
