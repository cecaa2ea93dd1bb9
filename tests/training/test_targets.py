"""The soft targets of the loss, and the factored head, which learns years."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import loss
import model
from toolkit import labels
from toolkit.labels import CLASSES, to_attributes, to_class
from toolkit.models import factored_head, fuse_batch_norm
from toolkit.training import targets
from toolkit.training.targets import make_targets

LABELS = torch.tensor([to_class(0, 1, 1), to_class(2, 0, 2), to_class(1, 0, 0)])
YEARS = torch.tensor([59.0, 60.0, float("nan")])


def test_labels_stay_labels_where_nothing_is_soft():
    assert make_targets(LABELS, YEARS) is LABELS
    table = make_targets(LABELS, YEARS, soft=True)
    assert torch.equal(table.argmax(1), LABELS) and table.shape == (3, CLASSES) and (table.sum(1) == 1).all()


def test_border_ages_are_shared_with_the_old():
    table = make_targets(LABELS, YEARS, soften=True)
    old = 0.5 * math.erfc(0.25 / math.sqrt(2))  # a Gaussian around 59 with a spread of 2, from 59.5 on
    assert table[0, LABELS[0]] == pytest.approx(1 - old) and table[0, LABELS[0] + 1] == pytest.approx(old)
    assert to_attributes(int(LABELS[0]) + 1) == {"mask": 0, "gender": 1, "age": 2}
    assert torch.equal(table[1:], nn.functional.one_hot(LABELS[1:], CLASSES).float())


def test_a_border_age_that_counts_as_old_is_not_shared_with_anybody(monkeypatch):
    """Winning teams count 58 as old."""
    for module in (labels, targets):
        monkeypatch.setattr(module, "AGE_FROM_YEARS", (30, 58))
    old = torch.tensor([to_class(0, 0, 2), to_class(2, 1, 2)])
    table = make_targets(old, torch.tensor([58.0, 59.0]), soften=True)
    assert torch.equal(table, nn.functional.one_hot(old, CLASSES).float())


def test_years_are_soft_and_nothing_where_unknown():
    years = make_targets(LABELS, YEARS, with_years=True)[:, CLASSES:]
    assert years.argmax(1)[:2].tolist() == [59, 60] and years[:2].sum(1).tolist() == pytest.approx([1, 1])
    assert years[0, 57] / years[0, 59] == pytest.approx(math.exp(-0.5 / 9)) and (years[2] == 0).all()


def test_the_years_of_a_person_lie_in_the_bands_of_the_label():
    """Also next to a border, and where BORDER_AGES=soften shares a label between two bands."""
    years = torch.tensor([18.0, 29.0, 30.0, 57.0, 58.0, 59.0, 60.0, 100.0, 61.0])
    ages = torch.tensor([0, 0, 1, 1, 1, 1, 2, 2, 1])  # the last was corrected to another band
    for soften in (False, True):
        table = make_targets(to_class(0, 1, ages), years, soften=soften, with_years=True)
        bands = torch.stack([table[:, CLASSES + a : CLASSES + b].sum(1) for a, b in ((0, 30), (30, 60), (60, 101))], 1)
        torch.testing.assert_close(bands, table[:, :CLASSES].view(-1, 6, 3).sum(1))
        assert ((bands[:, 2] > 0) == ((ages == 2) | (soften & (years > 56) & (years < 60)))).all()
    assert table[6, CLASSES + 61] / table[6, CLASSES + 60] == pytest.approx(math.exp(-1 / 72))


def test_the_best_net_for_somebody_who_is_certainly_old_says_old():
    parts = torch.zeros(1, sum(factored_head.PARTS), requires_grad=True)
    target = make_targets(torch.tensor([17]), torch.tensor([60.0]), with_years=True)
    criterion, net = loss.factored, factored_head.FactoredHead(nn.Identity())
    descent = torch.optim.LBFGS([parts], max_iter=200, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        descent.zero_grad()
        value = criterion(net(parts), target)
        value.backward()
        return value

    descent.step(step)
    assert net(parts)[0, :CLASSES].exp()[17].item() > 0.99


def outputs() -> torch.Tensor:
    torch.manual_seed(0)
    return factored_head.FactoredHead(nn.Linear(4, sum(factored_head.PARTS)))(torch.randn(5, 4))


def test_parts_are_joined_into_log_probabilities_of_all_classes():
    classes, years = outputs().split((CLASSES, factored_head.YEARS), 1)
    torch.testing.assert_close(classes.exp().sum(1), torch.ones(5))
    torch.testing.assert_close(years.exp().sum(1), torch.ones(5))
    p = classes.exp().view(5, 3, 2, 3)
    bands = torch.stack([years[:, begin:end].exp().sum(1) for begin, end in ((0, 30), (30, 60), (60, 101))], 1)
    torch.testing.assert_close(p.sum((1, 2)), bands)
    mask, gender = p.sum((2, 3)), p.sum((1, 3))
    torch.testing.assert_close(p, mask[:, :, None, None] * gender[:, None, :, None] * bands[:, None, None, :])


def test_the_third_band_can_begin_at_another_year():
    logits = outputs()
    moved = factored_head.with_old_from(logits, 57)
    torch.testing.assert_close(factored_head.with_old_from(moved, 60), logits)
    old = moved[:, :CLASSES].exp().view(5, 6, 3).sum(1)[:, 2]
    torch.testing.assert_close(old, logits[:, CLASSES + 57 :].exp().sum(1))


def test_the_factored_loss_counts_age_less_and_takes_the_band_where_the_year_is_unknown():
    logits = outputs()
    labels, years = torch.tensor([3, 4, 5, 16, 17]), torch.tensor([20.0, 58.0, 60.0, float("nan"), 60.0])
    table = make_targets(labels, years, with_years=True)
    mask, gender, age = (logits[:, :CLASSES].view(-1, 3, 2, 3).logsumexp(sides) for sides in ((2, 3), (1, 3), (1, 2)))
    of = to_attributes(labels)
    plain = sum(F.nll_loss(log_p, of[name]) for log_p, name in ((mask, "mask"), (gender, "gender")))
    soft = table[:, CLASSES:]
    each = (torch.special.xlogy(soft, soft) - soft * logits[:, CLASSES:]).sum(1)
    each[3] = -age[3, of["age"][3]]
    torch.testing.assert_close(loss.factored(logits, table), plain + loss.AGE_WEIGHT * each.mean())
    torch.testing.assert_close(loss.factored(logits, labels), plain + F.nll_loss(age, of["age"]))
    other = table[[3, 0, 1, 2, 4]]
    mixed = torch.lerp(table, other, 0.3)  # one whose year is known with one whose is not

    def gradient(targets: torch.Tensor) -> torch.Tensor:
        given = logits.detach().clone().requires_grad_()
        loss.factored(given, targets).backward()
        return given.grad

    torch.testing.assert_close(gradient(mixed), 0.7 * gradient(table) + 0.3 * gradient(other))
    perfect = table[[0, 1, 2, 4]].clamp(min=1e-30).log()
    torch.testing.assert_close(loss.factored(perfect, table[[0, 1, 2, 4]]), torch.tensor(0.0), atol=1e-5, rtol=0)
    half = make_targets(labels[[0, 0]], torch.tensor([20.0, float("nan")]), with_years=True).mean(0, keepdim=True)
    best = half.clone()
    best[:, CLASSES:] *= 2  # years that are not known are spread as the known ones are
    torch.testing.assert_close(loss.factored(best.clamp(min=1e-30).log(), half), torch.tensor(0.0), atol=1e-5, rtol=0)


def test_nets_with_a_factored_head_are_built_and_have_a_fresh_head():
    net, _ = model.build("squeezenet1_1", (64, 64), head="factored")
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, CLASSES + factored_head.YEARS)
    assert [tuple(net.get_parameter(name).shape) for name in model.head_names(net)] == [(106, 512, 1, 1), (106,)]
    net, _ = model.build("resnet18", (64, 64))
    assert model.head_names(net) == ["fc.weight", "fc.bias"]


def test_batch_norm_is_fused_into_a_net_with_a_factored_head():
    net = model.build("resnet18", (32, 32), head="factored")[0].eval()
    fused = fuse_batch_norm.fuse(net, torch.randn(4, 3, 32, 32))
    calls = [fused.get_submodule(node.target) for node in fused.graph.nodes if node.op == "call_module"]
    assert calls and not any(isinstance(module, nn.BatchNorm2d) for module in calls)
