"""Settings of train.py that do not go together: one has no effect beside the other, or works against it."""

from collections.abc import Iterator

from toolkit.config.shared import Settings
from toolkit.config.types import as_text
from toolkit.labels import ATTRIBUTES

BUILT_IN_LOSSES = ("cross_entropy", "label_smoothing", "logit_adjusted", "focal", "f1")  # of loss.py
FACTORED = ("mask", "gender", "age")  # the attributes of toolkit/labels.py that HEAD=factored is made for


def idle(config: Settings) -> dict[str, str]:
    """{setting: why it has no effect beside the others}. A given one is an error; one of a recipe gets its default."""
    found = {}
    if config.val_ratio or config.folds:
        found["decide_by"] = "has no effect where people are validated; remove it, or set VAL_RATIO=0 without FOLDS"
    else:
        found["patience"] = "has no effect with VAL_RATIO=0, as nothing is validated; remove it"
    if not config.folds:
        found["fold"] = "has no effect without FOLDS; set FOLDS, or remove it"
    if not config.folds or config.fold is not None:
        found["final"] = "expected all folds before it; set FOLDS, and leave FOLD unset"
    if config.sm_channel_pseudo is None:
        for name in ("pseudo_probabilities", "pseudo_from"):
            found[name] = "has no effect without SM_CHANNEL_PSEUDO; set that, or remove it"
    return found


def in_training(config: Settings) -> Iterator[str]:
    """A line for each conflict between settings of train.py."""
    if config.loss in BUILT_IN_LOSSES:  # a loss of one's own may take any of them
        yield from config.only_with("loss", "label_smoothing", "smoothing")
    if config.loss is None or config.loss in BUILT_IN_LOSSES:
        yield from config.only_with("loss", "focal", "gamma")
        yield from config.only_with("loss", "logit_adjusted", "tau")
    yield from config.only_with("folds", 0, "val_ratio")
    if config.folds == 1:
        yield "FOLDS=1: expected 0 (off) or 2 and more"
    if config.fold is not None and 0 < config.folds <= config.fold:
        yield f"FOLD={config.fold}: expected less than FOLDS={config.folds}; folds are counted from 0"
    for name, reason in idle(config).items():
        if name in config.model_fields_set and getattr(config, name) != type(config).model_fields[name].default:
            yield f"{name.upper()}={as_text(getattr(config, name))}: {reason}"
    if config.head == "factored" and tuple(ATTRIBUTES) != FACTORED:
        found = ", ".join(ATTRIBUTES)
        yield f"HEAD=factored: predicts {', '.join(FACTORED)}, found {found} in toolkit/labels.py; set HEAD=flat"
    if config.head:
        yield from config.only_with("head", "flat", "loss", "smoothing")
    if config.head == "factored" and config.class_weights not in ("auto", "none"):
        yield (
            f"CLASS_WEIGHTS={config.class_weights}: counts classes, but HEAD=factored learns years of age; set "
            "SAMPLER=balanced in its place, or HEAD=flat"
        )
    if config.loss == "logit_adjusted" and config.sampler == "balanced":
        yield (
            "SAMPLER=balanced: LOSS=logit_adjusted corrects for rare classes already, and both together would correct "
            "twice; leave SAMPLER unset, or set LOSS=label_smoothing"
        )
    if config.loss == "focal" and config.class_weights in ("sqrt", "balanced"):
        yield (
            f"CLASS_WEIGHTS={config.class_weights}: with LOSS=focal the decision cannot correct for weights, and "
            "rare classes would lose accuracy; set SAMPLER=balanced in their place, or LOSS=label_smoothing"
        )
