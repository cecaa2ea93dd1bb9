"""The losses, by name. Each takes logits (b, 18), float32, and labels (b,), int64, and returns one number.

To add one, write a function like these and name it in LOSSES. If photographs are mixed or labels softened, a label is a
distribution over the classes instead, float32 (b, 18); a loss that takes those is named in TAKES_SOFT_TARGETS too. With
a parameter `weight`, float32 (18,) or None, it gets CLASS_WEIGHTS; the decision takes them out again, as is right for a
loss that is a sum over photographs, each times the weight of its class. Validation always gives it whole labels. A loss
whose best net does not give the posterior, since it knows priors or smooths labels, says so in `for_training`. It keeps
nothing between calls: each net of a run of folds has a copy of its own, and a run that goes on begins with a new one.

torch takes seconds to import; the functions that need more of it than their tensors' own methods do it, so that a wrong
name is answered at once. A loss of your own may import it wherever it likes; modules of your own at the top, so that a
run knows them.
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

# Of age, where mask and gender have 1, with HEAD=factored: of some hundred faces, nets learn ages by heart first.
AGE_WEIGHT = 0.3


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    return label_smoothing(logits, labels, weight, smoothing=0.0)


def label_smoothing(logits: Tensor, labels: Tensor, weight: Tensor | None = None, *, smoothing: float) -> Tensor:
    """Cross entropy with (1 - smoothing) * label + smoothing / 18 (Szegedy et al., 2016).

    The sum over the photographs is divided by their number. torch divides by their weights: then one of a rare class
    makes its own batch count less, and the net learns less than the weights say (0.4 nats less in batches of 32).
    """
    import torch.nn.functional as F

    return F.cross_entropy(logits, labels, weight, reduction="sum", label_smoothing=smoothing) / len(labels)


def focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """The mean of -(1 - p)^gamma log p of the true class (Lin et al., 2017).

    It takes no weights. Its best net does not have p = weight x posterior (Charoenphakdee et al., 2021), so they could
    not be taken out again; meant to help the old, they would cost them.
    """
    log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    # Where p rounds to 1, 0 to a power below 1 has no gradient.
    return ((-log_p.expm1()).clamp(min=1e-7) ** gamma * -log_p).mean()


def factored(outputs: Tensor, targets: Tensor) -> Tensor:
    """D(mask) + D(gender) + AGE_WEIGHT * D(age), the mean over the photographs: that of HEAD=factored.

    D = sum of q log(q / p), from shares q to predictions p (Kullback and Leibler): 0 for a perfect net, where the cross
    entropy would be that of soft years and mixed photographs. Age is the year or, where that is not known, the age
    band. Shapes (b, 18 + 101): the outputs of toolkit/models/factored_head.py, and targets with years
    (toolkit/training/targets.py). Of labels, shape (b,), as in validation, it is the cross entropy of the classes.
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
    unknown = bands - known  # what is not known closer than by its band
    mask_and_gender = (classes * log_classes).sum() - (bands * log_bands).sum()
    age = (years * log_years).sum() + (unknown * log_bands).sum()
    shares = classes.unflatten(1, (-1, 2, 3))
    entr = torch.special.entr
    entropy = entr(shares.sum((2, 3))).sum() + entr(shares.sum((1, 3))).sum()
    entropy_of_age = entr(bands).sum() + entr(years).sum() - entr(known).sum()
    return -(mask_and_gender + entropy + AGE_WEIGHT * (age + entropy_of_age)) / len(targets)


def f1(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - soft macro F1, in which counts of true and false positives are sums of probabilities.

    The mean, weighted if there are weights, is over the classes in this batch: the F1 of a class without photographs is
    0 whatever the model says, and would teach nothing.
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
    loss_weights: Tensor  # how many times as much it counts each class: shape (18,)
    smoothing: float  # the share of each label that it spreads over all classes


def for_training(config: TrainSettings, counts: Tensor) -> TrainingLoss:
    """The loss that the settings ask for, from the number of training photographs of each class: int64, shape (18,)."""
    priors = counts.clamp(min=1) / counts.sum()
    weight = class_weights(counts, config.class_weights)
    options = {
        "label_smoothing": {"smoothing": config.smoothing},
        "focal": {"gamma": config.gamma},
        "logit_adjusted": {"priors": priors, "tau": config.tau},
    }
    plain = priors.new_ones(priors.shape)
    if config.head == "factored":
        return TrainingLoss(factored, plain, 0.0)
    criterion = build(config.loss, weight, **options.get(config.loss, {}))
    refuse_unfit(config.loss, criterion, counts.device)
    smoothing = config.smoothing if config.loss == "label_smoothing" else 0.0
    weights = loss_weights(config.loss, plain if weight is None else weight, priors, config.tau)
    return TrainingLoss(criterion, weights, smoothing)


def build(name: str, weight: Tensor | None, **options) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of that name as a function of logits and targets (toolkit/training/targets.py).

    `options` are the loss's own keywords; a loss gets `weight` only where there is one.
    """
    return partial(copy.deepcopy(LOSSES[name]), **options, **({} if weight is None else {"weight": weight}))


def refuse_unfit(name: str, criterion: Callable[[Tensor, Tensor], Tensor], device) -> None:
    """Raises InputError unless the loss gives one number that follows from the logits, for all targets that it takes.

    Found now and not after an epoch: validation has whole labels, and training may have soft targets.
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
                f"{tuple(given.shape)}, found {what}; its own keywords get their values in for_training in loss.py"
            ) from error
        is_tensor = isinstance(found, torch.Tensor)
        if not is_tensor or found.numel() != 1 or not found.requires_grad:
            kind = f"a tensor of shape {tuple(found.shape)}" if is_tensor else type(found).__name__
            raise InputError(f"LOSS={name}: expected one number that follows from the logits, found {kind}")


def takes_weight(name: str | None) -> bool:
    """Whether the loss of that name, or the default, has a parameter `weight`."""
    loss = LOSSES[name or "label_smoothing"]
    try:  # of a torch module, forward tells what it takes
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

    Scaled so that their mean over the photographs is 1. A class without photographs weighs 1: smoothed labels have it.
    """
    if how == "none":
        return None
    weight = counts.clamp(min=1).float() ** {"balanced": -1.0, "sqrt": -0.5}[how]
    return (weight * counts.sum() / (weight * counts).sum()).where(counts > 0, 1.0)


def loss_weights(name: str, weight: Tensor, priors: Tensor, tau: float) -> Tensor:
    """How many times as much the loss counts each class: shape (18,), from class weights and priors of that shape.

    A model learns to expect priors * loss_weights; toolkit/scoring/prior_correction.py takes that out again.
    """
    if name == "f1":  # its weights are those of a mean over classes, and change no class's own optimum
        return weight.new_ones(weight.shape)
    return weight / priors**tau if name == "logit_adjusted" else weight
