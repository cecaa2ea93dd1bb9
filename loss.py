"""The losses, by name. Each takes logits (b, 18), float32, and labels (b,), int64, and returns one number.

To add one, write a function like these and name it in LOSSES. If photographs are mixed or labels softened, labels are
distributions over the classes instead, float32 (b, 18); name a loss that takes those in TAKES_SOFT_TARGETS too.
Validation always gives whole labels. A loss with a parameter `weight`, float32 (18,) or None, gets CLASS_WEIGHTS. The
decision corrects for them, on the assumption that the loss is a sum over photographs, each times the weight of its
class. If the minimum of a loss is not the posterior, because it adds priors or smooths labels, `for_training` must say
so. A loss must keep nothing between calls: each net of a run of folds has its own copy, and a continued run begins with
a new one.

torch takes seconds to import, so only the functions that need it import it: a wrong name is reported at once. A loss of
your own may import it anywhere. Import modules of your own at the top of this file: then they are part of a run's
fingerprint.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from toolkit.labels import CLASSES
from toolkit.system.console import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.config.settings import TrainSettings

# Weight of age in the loss of HEAD=factored; mask and gender have 1. With some hundred faces, nets overfit to ages
# first.
AGE_WEIGHT = 0.3


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    return label_smoothing(logits, labels, weight, smoothing=0.0)


def label_smoothing(logits: Tensor, labels: Tensor, weight: Tensor | None = None, *, smoothing: float) -> Tensor:
    """Cross entropy with (1 - smoothing) * label + smoothing / 18 (Szegedy et al., 2016).

    The sum over the photographs is divided by their number. torch divides by the sum of their weights: then a
    photograph of a rare class makes its whole batch count less, and the net learns smaller weights than those given
    (0.4 nats smaller in batches of 32).
    """
    import torch.nn.functional as F

    return F.cross_entropy(logits, labels, weight, reduction="sum", label_smoothing=smoothing) / len(labels)


def focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """The mean of -(1 - p)^gamma log p of the true class (Lin et al., 2017).

    It takes no weights. At its minimum, p is not proportional to weight x posterior (Charoenphakdee et al., 2021), so
    the decision could not correct for them: rare classes would lose accuracy.
    """
    log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    # Where p rounds to 1, 1 - p is 0, and 0^gamma has no finite gradient if gamma < 1.
    return ((-log_p.expm1()).clamp(min=1e-7) ** gamma * -log_p).mean()


def factored(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of HEAD=factored: D(mask) + D(gender) + AGE_WEIGHT * D(age), the mean over the photographs.

    D = sum of q log(q / p), for targets q and predictions p (Kullback-Leibler divergence): 0 for a perfect net, also
    with soft years and mixed photographs, where the cross entropy would be above 0. Age is the year or, if that is not
    known, the age band. Shapes (b, 18 + 101): the outputs of toolkit/models/factored_head.py, and targets with years
    (toolkit/training/targets.py). With labels, shape (b,), as in validation, the result is the cross entropy of the
    classes.
    """
    if not targets.is_floating_point():
        return cross_entropy(outputs[:, :CLASSES], targets)
    import torch

    from toolkit.models import factored_head

    classes, years = targets[:, :CLASSES], targets[:, CLASSES:]
    log_classes, log_years = outputs[:, :CLASSES], outputs[:, CLASSES:]
    bands = classes.unflatten(1, (-1, 3)).sum(1)  # age is the last digit of a class
    log_bands = factored_head.in_bands(log_years, torch.logsumexp)
    known = factored_head.in_bands(years, torch.sum)
    unknown = bands - known  # the share of each band whose year is not known
    mask_and_gender = (classes * log_classes).sum() - (bands * log_bands).sum()
    age = (years * log_years).sum() + (unknown * log_bands).sum()
    shares = classes.unflatten(1, (-1, 2, 3))
    entr = torch.special.entr
    entropy = entr(shares.sum((2, 3))).sum() + entr(shares.sum((1, 3))).sum()
    entropy_of_age = entr(bands).sum() + entr(years).sum() - entr(known).sum()
    return -(mask_and_gender + entropy + AGE_WEIGHT * (age + entropy_of_age)) / len(targets)


def f1(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - soft macro F1, in which counts of true and false positives are sums of probabilities.

    The mean, weighted if there are weights, is over the classes in this batch: a class without photographs has F1 = 0
    whatever the model predicts, and would teach nothing.
    """
    p = logits.softmax(1)
    true = labels if labels.is_floating_point() else p.new_zeros(p.shape).scatter(1, labels[:, None], 1.0)
    soft_f1 = 2 * (p * true).sum(0) / (p + true).sum(0).clamp(min=1e-8)  # clamped, as p may underflow to 0
    weight_of_class = (true.sum(0) > 0).float() if weight is None else (true.sum(0) > 0) * weight
    return 1 - (soft_f1 * weight_of_class).sum() / weight_of_class.sum()


def logit_adjusted(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, *, priors: Tensor, tau: float
) -> Tensor:
    """Cross entropy of logits + tau * log priors (Menon et al., 2021); tau 1 is balanced softmax (Ren et al., 2020).

    The model then learns what a photograph says beyond how common its class is. `priors` are the shares of the classes
    in training, shape (18,).
    """
    return cross_entropy(logits + tau * priors.log(), labels, weight)


LOSSES = {
    "cross_entropy": cross_entropy,
    "label_smoothing": label_smoothing,
    "logit_adjusted": logit_adjusted,
    "focal": focal,
    "f1": f1,
}
TAKES_SOFT_TARGETS = ("cross_entropy", "label_smoothing", "logit_adjusted", "f1")


class TrainingLoss(NamedTuple):
    """The loss of a run."""

    criterion: Callable[[Tensor, Tensor], Tensor]  # outputs and targets (b, ...) -> one number
    loss_weights: Tensor  # factor of each class in the loss: shape (18,)
    smoothing: float  # the share of each label that it spreads over all classes


def for_training(config: TrainSettings, counts: Tensor) -> TrainingLoss:
    """The loss that the settings ask for, from the number of training photographs of each class: int64, shape (18,)."""
    ones = counts.float().new_ones(CLASSES)
    if config.head == "factored":
        return TrainingLoss(factored, ones, 0.0)
    priors, weight = counts.clamp(min=1) / counts.sum(), class_weights(counts, config.class_weights)
    options = {
        "label_smoothing": {"smoothing": config.smoothing},
        "focal": {"gamma": config.gamma},
        "logit_adjusted": {"priors": priors, "tau": config.tau},
    }
    criterion = build(config.loss, weight, counts.device, **options.get(config.loss, {}))
    refuse_unfit(config.loss, criterion, counts.device)
    smoothing = config.smoothing if config.loss == "label_smoothing" else 0.0
    weights = loss_weights(config.loss, ones if weight is None else weight, priors, config.tau)
    return TrainingLoss(criterion, weights, smoothing)


def build(name: str, weight: Tensor | None, device="cpu", **options) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of that name as a function of logits and targets (toolkit/training/targets.py) on the device.

    `options` are the loss's own keyword arguments; the loss gets `weight` only if it is not None.
    """
    import torch

    loss = copy.deepcopy(LOSSES[name])
    if isinstance(loss, torch.nn.Module):  # it may hold tensors
        loss = loss.to(device)
    return partial(loss, **options, **({} if weight is None else {"weight": weight}))


def refuse_unfit(name: str, criterion: Callable[[Tensor, Tensor], Tensor], device) -> None:
    """Raises InputError unless the loss returns one number with a gradient, for all kinds of targets that it takes.

    Both kinds are tried now: training may have soft targets, and validation, an epoch later, has whole labels.
    """
    import torch

    if isinstance(LOSSES[name], torch.nn.Module) and list(LOSSES[name].parameters()):
        raise InputError(
            f"LOSS={name}: expected a loss without parameters: they would not learn; put them into the net"
        )
    labels = torch.arange(4, device=device)
    targets = [labels]
    if name in TAKES_SOFT_TARGETS:
        targets.append(torch.nn.functional.one_hot(labels, CLASSES).float())
    for given in targets:
        logits = torch.linspace(-1, 1, 4 * CLASSES, device=device).view(4, CLASSES).requires_grad_()
        try:
            found = criterion(logits.clone(), given)
        except Exception as error:
            what = f"{type(error).__name__}: {error}".split("\n")[0]
            raise InputError(
                f"LOSS={name}: expected a number for logits of shape (4, {CLASSES}) and targets of shape "
                f"{tuple(given.shape)}, found {what}; give its own parameters their values in for_training in loss.py"
            ) from error
        is_tensor = isinstance(found, torch.Tensor)
        if not is_tensor or found.numel() != 1 or not found.requires_grad:
            kind = f"a tensor of shape {tuple(found.shape)}" if is_tensor else type(found).__name__
            raise InputError(f"LOSS={name}: expected one number that depends on the logits, found {kind}")


def takes_weight(name: str | None) -> bool:
    """Whether the loss of that name, or the default, has a parameter `weight`."""
    loss = LOSSES[name or "label_smoothing"]
    try:  # the parameters of a torch module are those of its forward
        parameters = inspect.signature(getattr(loss, "forward", loss)).parameters.values()
    except ValueError:  # written in C
        return False
    return any(parameter.name == "weight" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def refuse_class_weights(config: TrainSettings) -> None:
    """Raises InputError if CLASS_WEIGHTS are set that the loss does not take."""
    if config.class_weights != "none" and not takes_weight(config.loss):
        raise InputError(
            f"CLASS_WEIGHTS={config.class_weights}: LOSS={config.loss} has no parameter weight in loss.py; give it "
            "one, or set CLASS_WEIGHTS=none"
        )


def refuse_soft_targets(config: TrainSettings) -> None:
    """Raises InputError if the settings make soft targets and the loss does not take them."""
    softening = {
        "MIX": config.mix != "none",
        "BORDER_AGES": config.border_ages == "soften",
        "SM_CHANNEL_PSEUDO": config.sm_channel_pseudo is not None,
    }
    names = [name for name, softens in softening.items() if softens]
    if names and config.head == "flat" and config.loss not in TAKES_SOFT_TARGETS:
        given = [f"{name}={getattr(config, name.lower())}" for name in names]
        raise InputError(
            f"{' and '.join(given)}: LOSS={config.loss} takes whole labels, not soft targets; "
            f"set LOSS to one of {', '.join(TAKES_SOFT_TARGETS)}, or leave {' and '.join(names)} unset"
        )


def class_weights(counts: Tensor, how: str) -> Tensor | None:
    """A weight for each class: 1/n of its n training photographs ("balanced"), 1/sqrt(n) ("sqrt"), None ("none").

    Scaled so that their mean over the photographs is 1. A class without photographs has weight 1, as smoothed labels
    include it.
    """
    if how == "none":
        return None
    weight = counts.clamp(min=1).float() ** {"balanced": -1.0, "sqrt": -0.5}[how]
    return (weight * counts.sum() / (weight * counts).sum()).where(counts > 0, 1.0)


def loss_weights(name: str, weight: Tensor, priors: Tensor, tau: float) -> Tensor:
    """The factor of each class in the loss: shape (18,), from class weights and priors of that shape.

    A model learns priors * loss_weights in place of priors; toolkit/scoring/prior_correction.py corrects for that.
    """
    if name == "f1":  # its weights are those of a mean over classes; they do not change the optimum of a class
        return weight.new_ones(weight.shape)
    if name != "logit_adjusted":
        return weight
    weights = weight / priors**tau
    return weights / weights.max()  # the same optimum, and no number too large for the run's files
