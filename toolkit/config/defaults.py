"""Defaults that depend on other settings, or on the platform: the one place that knows them."""

from toolkit.config import sources
from toolkit.config.settings import TrainSettings
from toolkit.config.types import as_folder

# Learning rates and weight decay that train resnets from scratch (benchmarks/recipes.py).
OF_OPTIMIZER = {
    "adamw": {"lr": 1e-3, "weight_decay": 0.05},
    "adam": {"lr": 1e-3, "weight_decay": 0.0},
    "sgd": {"lr": 0.02, "weight_decay": 5e-4},
}
# Backbones that end in wide layers without a norm. At the whole rate the loss of vgg16_bn leapt to 42 and it learned
# nothing in an epoch of synthetic faces; at a fifth it learned.
WIDE_AT_THE_END = ("vgg", "alexnet")
# Losses that count each photograph alike, and so leave rare classes rare.
PLAIN_LOSSES = ("cross_entropy", "label_smoothing")


def of_optimizer(optimizer: str, backbone: str, pretrained: bool) -> dict[str, float]:
    """The learning rate and weight decay that suit these: {"lr", "weight_decay"}."""
    defaults = dict(OF_OPTIMIZER[optimizer])
    if backbone.startswith(WIDE_AT_THE_END):
        defaults["lr"] /= 5
    if pretrained:
        defaults["lr"] /= 2
    return defaults


def resolve(config: TrainSettings, origin: dict[str, str]) -> tuple[TrainSettings, dict[str, str]]:
    """The settings without unset or `auto` values that depend on others, and where each value comes from."""
    of_optimizer_here = of_optimizer(config.optimizer, config.name, config.weights != "none")
    values = {name: value for name, value in of_optimizer_here.items() if getattr(config, name) is None}
    origin = origin | dict.fromkeys(values, config.optimizer)
    if config.class_weights == "auto":
        # Weights on top of another remedy for rare classes would favour them twice.
        plain = config.head == "flat" and config.sampler == "shuffle" and config.loss in PLAIN_LOSSES
        values["class_weights"], origin["class_weights"] = "sqrt" if plain else "none", "auto"
    if config.run is None:
        values["run"], origin["run"] = as_folder(config.name), "NAME"
    if config.sm_checkpoint_dir is None and (folder := sources.sagemaker_checkpoints()):
        values["sm_checkpoint_dir"], origin["sm_checkpoint_dir"] = folder, "SageMaker"
    return config.model_copy(update=values), origin
