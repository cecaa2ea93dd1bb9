"""Each loss against a value worked out by hand, or another implementation."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

import loss
from toolkit.config import defaults
from toolkit.config.conflicts import BUILT_IN_LOSSES
from toolkit.config.settings import TrainSettings
from toolkit.scoring.decision import Decision
from toolkit.scoring.prior_correction import PriorCorrection
from toolkit.system.console import InputError

# Two photographs, two classes: p of the true class is 3/4 and 1/5.
LOGITS = torch.tensor([[math.log(3.0), 0.0], [math.log(4.0), 0.0]])
LABELS = torch.tensor([0, 1])


def test_cross_entropy_by_hand():
    assert loss.cross_entropy(LOGITS, LABELS).item() == pytest.approx((-math.log(3 / 4) - math.log(1 / 5)) / 2)


def test_a_photograph_counts_as_its_class_weighs_whatever_the_others_of_its_batch_weigh():
    weight = torch.tensor([1.0, 3.0])
    expected = (-math.log(3 / 4) - 3 * math.log(1 / 5)) / 2
    assert loss.cross_entropy(LOGITS, LABELS, weight).item() == pytest.approx(expected)


def test_label_smoothing_is_not_plain_cross_entropy():
    smoothed = torch.tensor([[0.95, 0.05], [0.05, 0.95]])  # 0.1 of the label spread over both classes
    expected = -(smoothed * LOGITS.log_softmax(1)).sum(1).mean().item()
    assert loss.label_smoothing(LOGITS, LABELS, smoothing=0.1).item() == pytest.approx(expected)
    assert expected != pytest.approx(loss.cross_entropy(LOGITS, LABELS).item())


def test_focal_by_hand_and_by_torchvision():
    expected = ((1 / 4) ** 2 * -math.log(3 / 4) + (4 / 5) ** 2 * -math.log(1 / 5)) / 2
    assert loss.focal(LOGITS, LABELS, gamma=2.0).item() == pytest.approx(expected)
    # With two classes the softmax of (x, 0) is the sigmoid of x.
    sigmoid = sigmoid_focal_loss(LOGITS[:, 0], 1.0 - LABELS, alpha=-1, gamma=2.0, reduction="mean")
    assert loss.focal(LOGITS, LABELS, gamma=2.0).item() == pytest.approx(sigmoid.item())


def test_soft_f1_by_hand():
    # class 0: 2 * 0.75 / (0.75 + 0.8 + 1); class 1: 2 * 0.2 / (0.25 + 0.2 + 1)
    expected = 1 - (1.5 / 2.55 + 0.4 / 1.45) / 2
    assert loss.f1(LOGITS, LABELS).item() == pytest.approx(expected)
    weighted = 1 - (3 * 1.5 / 2.55 + 0.4 / 1.45) / 4
    assert loss.f1(LOGITS, LABELS, torch.tensor([3.0, 1.0])).item() == pytest.approx(weighted)


def test_soft_f1_of_certain_logits_is_one_minus_macro_f1_over_the_classes_present():
    labels = torch.tensor([0, 0, 5, 5, 17])
    certain = 1000.0 * F.one_hot(torch.tensor([0, 5, 5, 5, 17]), 18)
    expected = 1 - (2 / 3 + 4 / 5 + 1) / 3
    assert loss.f1(certain, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", loss.LOSSES)
@pytest.mark.parametrize("weights", ["none", "sqrt", "balanced"])
def test_every_loss_takes_18_classes_weighted_or_not_and_falls_under_its_gradient(name, weights):
    torch.manual_seed(0)
    logits, labels = torch.randn(32, 18, requires_grad=True), torch.randint(0, 17, (32,))  # none of class 17
    adjusted = {"priors": torch.full((18,), 1 / 18), "tau": 1.0}
    own = {"label_smoothing": {"smoothing": 0.1}, "focal": {"gamma": 2.0}, "logit_adjusted": adjusted}
    options = own.get(name, {})
    counts = torch.bincount(labels, minlength=18)
    weight = None if name == "focal" else loss.class_weights(counts, weights)  # which takes none
    criterion = loss.build(name, weight, **options)
    before = criterion(logits, labels)
    before.backward()
    after = criterion(logits - logits.grad, labels)
    assert after < before


class Learning(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, logits, labels):
        return (self.scale * logits).sum()


@pytest.mark.parametrize(
    ("own", "found"),
    [
        (lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"), r"found a tensor of shape \(4,\)"),
        (lambda logits, labels: F.cross_entropy(logits, labels).item(), "found float"),
        (lambda logits, labels: F.cross_entropy(logits, labels).detach(), r"found a tensor of shape \(\)"),
        (lambda logits, labels: None, "found NoneType"),
        (lambda logits, labels, beta: logits.sum(), "missing 1 required positional argument: 'beta'.*for_training"),
        (torch.nn.BCEWithLogitsLoss(), "found ValueError"),
        (Learning(), "expected a loss without parameters"),
    ],
)
def test_a_loss_of_ones_own_that_gives_no_number_to_learn_from_is_refused(own, found, monkeypatch):
    monkeypatch.setitem(loss.LOSSES, "own", own)
    with pytest.raises(InputError, match=f"^LOSS=own: .*{found}"):
        loss.for_training(TrainSettings(loss="own", head="flat", class_weights="none"), torch.full((18,), 9))


def test_a_loss_of_ones_own_may_write_into_logits_and_each_net_has_its_own(monkeypatch):
    class Margin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, logits, labels):
            self.calls += 1
            logits[torch.arange(len(labels)), labels] -= 3
            return F.cross_entropy(logits, labels)

    monkeypatch.setitem(loss.LOSSES, "own", Margin())
    for _ in range(2):
        config = TrainSettings(loss="own", head="flat", class_weights="none")
        criterion = loss.for_training(config, torch.full((18,), 9)).criterion
        assert criterion.func.calls == 1
    assert loss.LOSSES["own"].calls == 0


def test_a_torch_module_goes_to_the_device_of_the_net(monkeypatch):
    """The meta device stands for a GPU: a tensor on the CPU does not fit its own either."""
    monkeypatch.setitem(loss.LOSSES, "own", torch.nn.CrossEntropyLoss(weight=torch.ones(18)))
    config = TrainSettings(loss="own", head="flat", class_weights="none")
    assert loss.for_training(config, torch.full((18,), 9, device="meta")).criterion.func.weight.is_meta
    assert not loss.LOSSES["own"].weight.is_meta


def test_the_weights_of_the_rarest_classes_fit_into_the_files_of_a_run():
    config = TrainSettings(loss="logit_adjusted", tau=2, class_weights="balanced", head="flat")
    weights = loss.for_training(config, torch.tensor([2983, *[1] * 17])).loss_weights
    even = (1 / 18,) * 18
    correction = PriorCorrection(even, even, tuple(weights.tolist()))
    assert Decision.from_plain(Decision(1.0, 0.5, correction).as_plain()).prior_correction == correction


def test_the_settings_know_the_losses_that_are_built_in():
    assert list(loss.LOSSES) == list(BUILT_IN_LOSSES)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_a_gradient_where_the_net_is_certain(gamma):
    logits = (100.0 * torch.eye(18)).requires_grad_()
    loss.focal(logits, torch.arange(18), gamma=gamma).backward()
    assert logits.grad.isfinite().all()


def test_class_weights_are_inverse_to_the_counts_with_mean_one_over_the_photographs():
    counts = torch.tensor([100, 25, 0])
    balanced, sqrt = loss.class_weights(counts, "balanced"), loss.class_weights(counts, "sqrt")
    assert (balanced[1] / balanced[0]).item() == pytest.approx(4)
    assert (sqrt[1] / sqrt[0]).item() == pytest.approx(2)
    assert balanced[2] == sqrt[2] == 1  # what smoothing gives to a class without photographs is not multiplied
    assert (balanced * counts).sum().item() == pytest.approx(125)
    assert loss.class_weights(counts, "none") is None


def test_what_a_net_learns_to_expect_is_where_its_loss_is_least():
    """Photographs that say nothing: the best constant logits are log(priors * loss_weights), also in small batches."""
    torch.manual_seed(0)
    labels = torch.multinomial(torch.arange(1.0, 19.0), 4000, replacement=True)
    counts = torch.bincount(labels, minlength=18)
    priors = counts / counts.sum()
    for name, options, weights, tau in (
        ("cross_entropy", {}, "sqrt", 1.0),
        ("cross_entropy", {}, "balanced", 1.0),
        ("logit_adjusted", {"priors": priors, "tau": 0.5}, "none", 0.5),
        ("logit_adjusted", {"priors": priors, "tau": 0.5}, "balanced", 0.5),
    ):
        weight = loss.class_weights(counts, weights)
        given = torch.ones(18) if weight is None else weight
        expected = priors * loss.loss_weights(name, given, priors, tau)
        logits = (expected / expected.sum()).log().requires_grad_()
        criterion, batches = loss.build(name, weight, **options), labels.split(8)
        (sum(criterion(logits.expand(8, 18), batch) for batch in batches) / len(batches)).backward()
        assert logits.grad.abs().max() < 1e-6


def test_a_loss_of_ones_own_has_class_weights_as_built_in_ones_do_or_a_note_says_that_it_has_none(monkeypatch, capsys):
    def weighted(logits, labels, weight=None):
        return F.cross_entropy(logits, labels, weight)

    def unweighted(logits, labels):
        return F.cross_entropy(logits, labels)

    losses = {"weighted": weighted, "unweighted": unweighted, "module": torch.nn.CrossEntropyLoss()}
    monkeypatch.setattr(loss, "LOSSES", loss.LOSSES | losses)
    counts = torch.arange(18)
    for name, how in (("weighted", "sqrt"), ("unweighted", "none"), ("module", "none"), ("focal", "none")):
        given = TrainSettings(loss=name), dict.fromkeys(TrainSettings.model_fields, "default")
        config, _ = defaults.resolve(*given, loss.takes_weight(name))
        assert config.class_weights == how
        assert ("has no parameter weight" in capsys.readouterr().out) == (name in ("unweighted", "module"))
        loss.for_training(config, counts).criterion(torch.zeros(2, 18), torch.tensor([0, 1]))
        if name in ("unweighted", "module"):
            with pytest.raises(InputError, match=f"CLASS_WEIGHTS=sqrt: LOSS={name} has no parameter weight"):
                loss.refuse_class_weights(config.model_copy(update={"class_weights": "sqrt"}))
        else:
            loss.refuse_class_weights(config)
