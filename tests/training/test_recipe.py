"""What training does beside plain steps: averaging, frozen layers, mixing, sampling, and the learning-rate finder."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import QUICK, flags, from_scratch, refused, run_script
from torch import nn

import loss
import train
from toolkit.data import augment
from toolkit.data.loader import split_into_batches
from toolkit.models.batch_norm import recompute_batch_norm_statistics
from toolkit.training import lr_finder
from toolkit.training.optimizer import make_optimizer
from toolkit.training.sampler import balanced_sampling_weights, epoch_order
from toolkit.training.step import EpochInputs, Recipe, train_one_epoch
from toolkit.training.train_state import EMA


def net_with_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(512, 18))


def test_the_ema_spans_the_last_tenth_of_the_steps_and_takes_buffers_too():
    net = net_with_norm()
    ema, expected = EMA(net, 0.999), net[3].bias.detach().clone()
    for number in range(200):
        with torch.no_grad():
            net[3].bias.add_(1.0)
        net[1].num_batches_tracked += 1
        ema.update(net, number)
        decay = min(0.999, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * net[3].bias
    torch.testing.assert_close(ema.model[3].bias, expected)
    behind = (net[3].bias - ema.model[3].bias).mean().item()
    assert 15 < behind < 30 and ema.model[1].num_batches_tracked == 200
    assert torch.equal(net[3].weight, ema.model[3].weight)


def test_what_the_builder_has_frozen_stays_with_its_statistics(task):
    net = net_with_norm()
    net[:2].requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    recipe = Recipe(lambda step: 1e-2, 16, 1.0, 0, augment.POLICIES["light"])
    train_one_epoch(net, make_optimizer("adamw", net, 1e-2, 0.05), task, recipe, 0)
    recompute_batch_norm_statistics(net, task.loader, split_into_batches(task.train, 16))
    changed = {name.partition(".")[0] for name, value in net.state_dict().items() if not value.equal(before[name])}
    assert changed == {"3"}


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_photographs_are_mixed_as_their_targets_are(task, how):
    seen = []

    def criterion(outputs, targets):
        seen.append(targets)
        return loss.cross_entropy(outputs, targets)

    task = dataclasses.replace(task, targets=nn.functional.one_hot(task.labels, 18).float(), criterion=criterion)
    policy = augment.POLICIES["none"]
    epochs = [EpochInputs(task, 0, epoch, policy, how) for epoch in (0, 0, 1)]
    positions = np.arange(len(task.train))
    inputs = [
        torch.cat(list(epoch.load(split_into_batches(positions, size))))
        for epoch, size in zip(epochs, (16, 7, 16), strict=True)
    ]
    assert torch.equal(inputs[0], inputs[1]) and not torch.equal(inputs[0], inputs[2])  # whatever the batches are
    order, plain = epochs[0].order, next(task.loader.load([epochs[0].order]))
    for position in range(len(task.train)):
        lam, other = epochs[0].lam[position].item(), epochs[0].permutation[position]
        first, second = plain[position], plain[other]
        mixed = lam * first + (1 - lam) * second
        if how == "cutmix" and lam < 1:
            assert lam == 0.5
            mixed = torch.cat([first[:, :, :16], second[:, :, 16:]], 2)
        torch.testing.assert_close(inputs[0][position], mixed, rtol=1e-4, atol=1e-5)
        target = lam * task.targets[order[position]] + (1 - lam) * task.targets[order[other]]
        torch.testing.assert_close(epochs[0].targets[position], target)
    assert 0.3 < (epochs[0].lam < 1).float().mean() < 0.7
    net = net_with_norm()
    recipe = Recipe(lambda step: 1e-3, 16, 1.0, 0, policy, mix=how)
    train_one_epoch(net, make_optimizer("adamw", net, 1e-3, 0.0), task, recipe, 0)
    assert torch.equal(torch.cat(seen), epochs[0].targets)


def test_the_balanced_sampler_draws_classes_and_their_people_equally_often(task):
    labels, people = task.labels[task.train].numpy(), task.people.iloc[task.train].astype(str).to_numpy()
    weights = balanced_sampling_weights(labels, people)
    assert np.bincount(labels, weights, 18)[np.unique(labels)] == pytest.approx(1 / len(np.unique(labels)))
    for label in np.unique(labels):
        of_class = [weights[(labels == label) & (people == person)].sum() for person in set(people[labels == label])]
        assert of_class == pytest.approx([of_class[0]] * len(of_class))
    drawn = np.concatenate([epoch_order(task.train, 0, epoch, weights) for epoch in range(200)])
    sampled_priors = np.bincount(task.labels[drawn], minlength=18) / len(drawn)
    assert sampled_priors[np.unique(labels)] == pytest.approx(1 / len(np.unique(labels)), rel=0.15)


def test_the_learning_rate_finder_sees_where_training_gains_and_where_it_breaks(task, capsys):
    config = from_scratch(lr=1e-3, weight_decay=0.0, batch_size=16)
    points = lr_finder.sweep(config, net_with_norm(), task)
    rates, losses = zip(*points, strict=True)
    assert list(rates) == sorted(rates) and rates[0] == lr_finder.LOWEST
    best = int(np.argmin(losses))
    assert 1e-4 < rates[best] < 0.3 and losses[best] < 0.8 * losses[0] and losses[-1] > 1.2 * losses[best]
    assert lr_finder.suggestion(points) == pytest.approx(rates[best] / 10)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len({*range(0, len(points), lr_finder.STEPS_PER_LINE), len(points) - 1})
    columns = [line.index("*") for line in lines[1:]]  # as it went: the star is where the loss is
    assert float(lines[1].split()[0]) == rates[0] and min(columns) < columns[0] < columns[-1]


def test_the_finder_says_a_rate_and_leaves_no_run(drawn, tmp_path, capsys):
    given = {"sm_channel_train": drawn.train, "sm_model_dir": tmp_path, "name": "shufflenet_v2_x0_5", "batch_size": 8}
    train.main(flags(**QUICK, **given, find_lr="true"))
    assert "suggestion" in capsys.readouterr().out and list(tmp_path.iterdir()) == []


def test_wrong_combinations_are_refused_before_any_work(drawn, trained, tmp_path):
    folders = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path}
    for mixing in ({"MIX": "mixup"}, {"BORDER_AGES": "soften"}, {"SM_CHANNEL_PSEUDO": drawn.eval}):
        ((name, value),) = mixing.items()
        done = run_script("train.py", **folders, **QUICK, **mixing, LOSS="focal")
        refused(done, f"{name}={value}: LOSS=focal takes whole labels", "label_smoothing", f"leave {name} unset")
    eval_folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": trained, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    done = run_script("inference.py", **eval_folders, OLD_FROM="58")
    refused(done, "OLD_FROM=58: expected runs of HEAD=factored", "found HEAD=flat in resnet18")
    refused(run_script("inference.py", **eval_folders, ENSEMBLE="vote"), "ENSEMBLE=vote: has no effect with one run")
    assert list((tmp_path / "out").iterdir()) == []
