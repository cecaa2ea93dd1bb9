"""The losses, by name. Each takes logits (b, 18), float32, and labels (b,), int64, and gives one number.

To add one, write a function like these and name it in LOSSES. Where photographs are mixed, or labels softened, a label
is a share of each class instead, float32 (b, 18): a loss that can learn from those is named in TAKES_SHARES too.

torch takes seconds to import; the functions that need more of it than their tensors' own methods do it, so that a wrong
name is answered at once. A loss of your own may import it wherever it likes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from toolkit.labels import CLASSES
from toolkit.system.console import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.config.settings import TrainSettings


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    return label_smoothing(logits, labels, weight, smoothing=0.0)


def label_smoothing(logits: Tensor, labels: Tensor, weight: Tensor | None = None, *, smoothing: float) -> Tensor:
    """Cross entropy against labels of which a share is spread evenly over all classes (Szegedy et al., 2016)."""
    import torch.nn.functional as F

    return F.cross_entropy(logits, labels, weight, label_smoothing=smoothing)


def focal(logits: Tensor, labels: Tensor, weight: Tensor | None = None, *, gamma: float) -> Tensor:
    """Cross entropy times (1 - p)^gamma, p being what the true class got (Lin et al., 2017, Focal Loss).

    With weights it is the weighted mean, as in cross entropy.
    """
    log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    loss = (1 - log_p.exp()) ** gamma * -log_p
    share = loss.new_ones(loss.shape) if weight is None else weight[labels]
    return (loss * share).sum() / share.sum()


def f1(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - soft macro F1: counts of true and false positives are sums of probabilities.

    Over the classes that this batch holds: the F1 of a class without a photograph in it is 0 whatever the net says,
    and would teach nothing. With weights it is their weighted mean.
    """
    p = logits.softmax(1)
    true = labels if labels.is_floating_point() else p.new_zeros(p.shape).scatter(1, labels[:, None], 1.0)
    soft_f1 = 2 * (p * true).sum(0) / (p + true).sum(0).clamp(min=1e-8)  # 0 / 0 where p has underflowed
    share = (true.sum(0) > 0).float() if weight is None else (true.sum(0) > 0) * weight
    return 1 - (soft_f1 * share).sum() / share.sum()


def logit_adjusted(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, *, shares: Tensor, strength: float
) -> Tensor:
    """Cross entropy of logits to which the logarithms of the classes' shares are added (Menon et al., 2021).

    The net learns what photographs say beyond how common a class is; with a `strength` of 1 this is balanced softmax
    (Ren et al., 2020). `shares`, shape (18,), are those of training.
    """
    import torch.nn.functional as F

    return F.cross_entropy(logits + strength * shares.log(), labels, weight)


LOSSES = {
    "cross_entropy": cross_entropy,
    "label_smoothing": label_smoothing,
    "logit_adjusted": logit_adjusted,
    "focal": focal,
    "f1": f1,
}
ENTROPIES = ("cross_entropy", "label_smoothing")  # which leave rare classes as rare as they are
TAKES_SHARES = ("cross_entropy", "label_smoothing", "logit_adjusted", "f1")


def build(name: str, weight: Tensor | None = None, **options):
    """The loss of that name as a function of (outputs, targets); `options` are what it takes beside them.

    Outputs are those of a net and targets those of toolkit/targets.py. Years behind the 18 classes add cross entropy.
    """
    loss = partial(LOSSES[name], weight=weight, **options)

    def of_all(outputs: Tensor, targets: Tensor) -> Tensor:
        logits = outputs[:, :CLASSES]
        if not targets.is_floating_point():
            return loss(logits, targets)
        classes, years = targets[:, :CLASSES], targets[:, CLASSES:]
        value = loss(logits, classes if name in TAKES_SHARES else classes.argmax(1))
        return value - (years * outputs[:, CLASSES:]).sum() / len(years) if years.shape[1] else value

    return of_all


def refuse_shares_for(config: TrainSettings) -> None:
    """Raises InputError where labels become shares of classes, which the loss cannot take."""
    makes_shares = {"MIX": config.mix != "none", "BORDER_AGES": config.border_ages == "soften"}
    names = [name for name, makes in makes_shares.items() if makes]
    if names and config.loss not in TAKES_SHARES:
        given = [f"{name}={getattr(config, name.lower())}" for name in names]
        raise InputError(
            f"{' and '.join(given)}: LOSS={config.loss} takes whole labels, not shares of several classes; "
            f"set LOSS to one of {', '.join(TAKES_SHARES)}, or leave {' and '.join(names)} unset"
        )


def class_weights(counts: Tensor, how: str) -> Tensor | None:
    """A weight a class: 1/n of its n training photographs ("balanced"), 1/sqrt(n) ("sqrt"), or None ("none").

    Scaled so that the mean over the photographs is 1. A class without photographs weighs 1: smoothed labels have it.
    """
    if how == "none":
        return None
    weight = counts.clamp(min=1).float() ** {"balanced": -1.0, "sqrt": -0.5}[how]
    return (weight * counts.sum() / (weight * counts).sum()).where(counts > 0, 1.0)


def emphasis(name: str, weight: Tensor, shares: Tensor, strength: float) -> Tensor:
    """How much more a loss makes of each class than it is common: shape (18,), from class weights and shares of it.

    What a net learns to expect is the shares times this; the decision takes it out again (toolkit/decision.py).
    """
    if name == "f1":  # its weights are of the mean over classes, not of photographs
        return weight.new_ones(weight.shape)
    return weight / shares**strength if name == "logit_adjusted" else weight
