import pytest
import torch
from torch import nn

from toolkit.training import optimizer
from toolkit.training.optimizer import make_optimizer


def rates(schedule="cosine", steps=100, warmup=0.1):
    return [optimizer.learning_rate(step, steps, 1.0, warmup, schedule) for step in range(steps)]


def test_the_learning_rate_rises_then_falls_as_torchs_cosine_does():
    values = rates()
    assert values[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90)
    for value in values[10:]:
        assert value == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_constant_stays_after_the_warm_up_and_a_run_of_one_step_moves():
    assert rates("constant")[10:] == [1.0] * 90
    assert optimizer.learning_rate(0, 1, 1.0, 0.1, "cosine") > 0
    assert rates(warmup=0.0)[0] == 1.0


def test_layers_that_were_frozen_begin_as_gently_as_the_head_did():
    values = [optimizer.learning_rate(step, 120, 1.0, 0.1, "cosine", frozen=20) for step in range(120)]
    assert values[:20] == [1 / 3, 2 / 3] + [1.0] * 18
    assert values[20:] == rates()


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_optimizers_spare_biases_and_norms_and_sgd_has_momentum(name):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    decayed, spared = make_optimizer(name, model, lr=0.5, weight_decay=0.1).param_groups
    assert [weight.ndim for weight in decayed["params"]] == [2]
    assert [weight.ndim for weight in spared["params"]] == [1, 1, 1]
    assert (decayed["lr"], decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0.1, 0)
    assert decayed.get("momentum", 0.9) == 0.9
