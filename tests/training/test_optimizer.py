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


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_optimizers_spare_biases_and_norms_and_sgd_has_momentum(name):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    decayed, spared = make_optimizer(name, model, lr=0.5, weight_decay=0.1).param_groups
    assert [weight.ndim for weight in decayed["params"]] == [2]
    assert [weight.ndim for weight in spared["params"]] == [1, 1, 1]
    assert (decayed["lr"], decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0.1, 0)
    assert decayed.get("momentum", 0.9) == 0.9


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_moments_of_other_shapes_types_or_names_are_refused_before_they_meet_a_weight(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    used = make_optimizer(name, model, lr=0.1, weight_decay=0.1)
    model(torch.ones(1, 3, 3, 3)).sum().backward()
    used.step()
    whole = optimizer.state_tensors(used)
    fresh = make_optimizer(name, model, lr=0.1, weight_decay=0.1)
    optimizer.load_state_tensors(fresh, whole)
    found = optimizer.state_tensors(fresh)
    assert whole.keys() == found.keys() and all(torch.equal(whole[key], found[key]) for key in whole)
    optimizer.load_state_tensors(fresh, {key: value for key, value in whole.items() if not key.startswith("0.")})
    crafted = [{key: wrong} for key in whole for wrong in (whole[key][None], torch.zeros(7, 7))]
    crafted += [{key: whole[key].to(torch.int64)} for key in whole if key.endswith("step")]
    for wrong in crafted:
        with pytest.raises(ValueError, match="moments of weight"):
            optimizer.load_state_tensors(fresh, whole | wrong)
    if name != "sgd":  # which has one moment
        with pytest.raises(ValueError, match="moments of weight 0: step, exp_avg"):
            optimizer.load_state_tensors(fresh, {key: whole[key] for key in whole if key != "0.exp_avg_sq"})
    for key in ("0.more", "99.exp_avg", "x.exp_avg"):
        with pytest.raises((ValueError, IndexError)):
            optimizer.load_state_tensors(fresh, whole | {key: torch.zeros(1)})


class Counting(torch.optim.SGD):
    """Its count of steps and a product are numbers, as in many optimizers from elsewhere."""

    def step(self):
        super().step()
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["count"] = self.state[weight].get("count", 0) + 1
                self.state[weight]["product"] = self.state[weight].get("product", 1.0) * 0.96


def test_the_moments_of_an_optimizer_of_ones_own_may_be_numbers(monkeypatch):
    monkeypatch.setitem(optimizer.OPTIMIZERS, "counting", Counting)
    model = nn.Linear(3, 2)
    used, fresh = (make_optimizer("counting", model, lr=0.1, weight_decay=0.1) for _ in range(2))
    model(torch.ones(1, 3)).sum().backward()
    used.step()
    optimizer.load_state_tensors(fresh, optimizer.state_tensors(used))
    for weight in model.parameters():
        assert [fresh.state[weight][name] for name in ("count", "product")] == [1, 0.96]
        assert isinstance(fresh.state[weight]["count"], int)
