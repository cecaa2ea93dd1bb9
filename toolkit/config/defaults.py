"""Defaults that depend on other settings, or on the platform: the one place that knows them."""

from toolkit.config import conflicts, presets, sources
from toolkit.config.settings import TrainSettings
from toolkit.config.types import as_folder
from toolkit.labels import ATTRIBUTES
from toolkit.system.console import say

# From trained weights a net memorises some hundred faces within two epochs. These values slow that: macro F1 +0.05 in 6
# epochs, -0.1 in 3 (docs/measured.md). From scratch a net learns slowly anyway.
AGAINST_OVERFITTING = {"head": "factored", "augment": "strong", "mix": "mixup", "ema": True}
PLAIN = {"head": "flat", "augment": "light", "mix": "none", "ema": False}
ENOUGH_EPOCHS = 6
BY_START = "WEIGHTS, EPOCHS"  # where these values come from
# If the user chose the loss: the factored head has a loss of its own, and not every loss takes mixed photographs.
WITH_OWN_LOSS = {"head": "flat", "mix": "none"}
# Learning rates and weight decay that train resnets from scratch (benchmarks/recipes.py).
OPTIMIZER_DEFAULTS = {
    "adamw": {"lr": 1e-3, "weight_decay": 0.05},
    "adam": {"lr": 1e-3, "weight_decay": 0.0},
    "sgd": {"lr": 0.02, "weight_decay": 5e-4},
}
# Backbones that end in wide layers without a norm. At the whole rate the loss of vgg16_bn leapt to 42 and it learned
# nothing in an epoch of synthetic faces; at a fifth it learned.
WIDE_AT_THE_END = ("vgg", "alexnet")
# What trained weights make of these; efficientnet_lite0 was measured with adamw (docs/measured.md).
PRETRAINED_FACTORS = {"lr": 0.5, "weight_decay": 1.0}
PRETRAINED_FACTORS_OF = {"efficientnet_lite0": {"lr": 2.0, "weight_decay": 6.0}}
# Losses that correct for rare classes themselves. All others, also the user's own, count each photograph alike.
CORRECTS_RARE_CLASSES = ("logit_adjusted", "focal", "f1")


def optimizer_defaults(optimizer: str, backbone: str, pretrained: bool) -> dict[str, float]:
    """The learning rate and weight decay that suit these: {"lr", "weight_decay"}."""
    defaults = dict(OPTIMIZER_DEFAULTS[optimizer])
    if backbone.startswith(WIDE_AT_THE_END):
        defaults["lr"] /= 5
    if pretrained:
        for name, factor in PRETRAINED_FACTORS_OF.get(backbone, PRETRAINED_FACTORS).items():
            defaults[name] *= factor
    return defaults


def resolve(
    config: TrainSettings, origin: dict[str, str], takes_weight: bool = True, head: str | None = None
) -> tuple[TrainSettings, dict[str, str]]:
    """The settings, with values in place of unset and `auto` where these depend on others; and where each comes from.

    `takes_weight`: whether the loss has a parameter `weight`; a note is printed if class weights are needed and it has
    none. `head`: the head of the run that WEIGHTS names, which is kept; None without such a run.
    """
    origin = dict(origin)

    def fill(source: str, **values) -> None:
        """Give the settings that are still unset these values: the first source that knows a setting wins."""
        nonlocal config
        unset = {name: value for name, value in values.items() if getattr(config, name) is None}
        config = config.model_copy(update=unset)
        origin.update(dict.fromkeys(unset, source))

    # A recipe may have set these, but beside the other settings they have no effect.
    idle = {name: TrainSettings.model_fields[name].default for name in conflicts.idle(config)}
    config = config.model_copy(update=idle)
    trained = config.weights != "none"
    fill(config.optimizer, **optimizer_defaults(config.optimizer, config.name, trained))
    if tuple(ATTRIBUTES) != conflicts.FACTORED:
        fill("labels.py", head="flat")
    if _has_own_loss(config):
        fill("LOSS", **WITH_OWN_LOSS)
    if head:
        fill("WEIGHTS", head=head)
    fill(BY_START, **(AGAINST_OVERFITTING if trained and config.epochs >= ENOUGH_EPOCHS else PLAIN))
    fill("HEAD", loss="factored" if config.head == "factored" else "label_smoothing")
    fill("NAME", run=as_folder(config.name))
    if folder := sources.sagemaker_checkpoints():
        fill("SageMaker", sm_checkpoint_dir=folder)
    if config.class_weights == "auto":
        # Weights on top of another remedy for rare classes would favour them twice.
        is_needed = config.head == "flat" and config.sampler == "shuffle" and config.loss not in CORRECTS_RARE_CLASSES
        if is_needed and not takes_weight:
            say(
                f"note: LOSS={config.loss} has no parameter weight, so CLASS_WEIGHTS=auto is none; to compare it "
                "with another loss, give it the parameter, or set CLASS_WEIGHTS=none for both"
            )
        config = config.model_copy(update={"class_weights": "sqrt" if is_needed and takes_weight else "none"})
        origin["class_weights"] = "auto"
    return config, origin


def origin_in_folds(origin: dict[str, str]) -> dict[str, str]:
    """The sources in a net of a run of folds: what EPOCHS decides was decided for the run, not by the net's EPOCHS."""
    return {name: presets.FOLDS_SOURCE if source == BY_START else source for name, source in origin.items()}


def _has_own_loss(config: TrainSettings) -> bool:
    """Whether somebody chose the loss, its smoothing or its weights: also in a recipe, whose values count as unset."""
    default = TrainSettings.model_fields["smoothing"].default
    has_smoothing = "smoothing" in config.model_fields_set or config.smoothing != default
    return config.loss is not None or has_smoothing or config.class_weights != "auto"
