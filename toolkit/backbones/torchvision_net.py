"""torchvision's classification models: their names, the models with a head of our own, and their ImageNet weights.

torchvision takes seconds to import, so the functions that need it do it.
"""

from __future__ import annotations

import importlib.util
import pathlib
import re
from typing import TYPE_CHECKING

from toolkit.backbones import pretrained
from toolkit.system.console import InputError, first_line, say

if TYPE_CHECKING:
    from torch import nn

IMAGENET_CLASSES = 1000


def names() -> list[str]:
    """The names of torchvision's models, read from its source code without importing it."""
    folder = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent / "models"
    registered = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
    sources = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))]
    return [name for source in sources for name in registered.findall(source)]


def build(name: str, size: tuple[int, int], outputs: int, initialise: bool = True) -> nn.Module:
    """The model with a fresh last layer. Its layers are the same whether it is built for training or for a run's file.

    With `initialise` False the first weights of other layers do not matter: they will be overwritten.
    """
    import torchvision

    options = {}
    if name.startswith("vit_"):  # made for square photographs of one size
        options["image_size"] = size[0]
    if name in ("inception_v3", "googlenet") or (name.startswith("vgg") and not initialise):
        options["init_weights"] = False  # the default is slow, and torchvision warns of it
    model = torchvision.models.get_model(name, **options)
    if name in ("inception_v3", "googlenet"):
        model.transform_input = False  # our inputs are normalised already
        model.aux_logits = False  # auxiliary classifiers make outputs of another form in training
        for part in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, part):
                setattr(model, part, None)
    replace_head(model, outputs)
    return model


def replace_head(model: nn.Module, outputs: int) -> None:
    """Replace the last layer of 1,000 classes, whatever its name, by a fresh one.

    Raises InputError if there is no linear layer or 1 x 1 convolution of 1,000 outputs.
    """
    from torch import nn

    for path, layer in reversed(list(model.named_modules())):
        parent, _, attribute = path.rpartition(".")
        if isinstance(layer, nn.Linear) and layer.out_features == IMAGENET_CLASSES:
            head = nn.Linear(layer.in_features, outputs, bias=layer.bias is not None)
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == IMAGENET_CLASSES:
            head = nn.Conv2d(layer.in_channels, outputs, layer.kernel_size)
        else:
            continue
        setattr(model.get_submodule(parent), attribute, head)
        return
    raise InputError(f"{type(model).__name__}: expected a last layer of {IMAGENET_CLASSES} classes, found none")


def imagenet_weights(name: str) -> pretrained.Trained:
    """The weights, downloaded unless they are there. Raises InputError if that fails, or if the file is damaged."""
    import torch
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    file = pathlib.Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        if file.parts[0] == "~":  # as a path it would be a folder of that name here
            raise OSError("there is no home folder")
        if not file.exists():
            say(f"downloading {weights.url} to {file}")
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(file), pretrained.hash_in_name(file), progress=False)
    except Exception as error:  # no network, no rights, a full disk: the remedy is the same
        reason = first_line(error)
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            reason += "; python.org's Python on a Mac needs its Install Certificates.command to be run first"
        raise InputError(
            f"WEIGHTS=imagenet: expected torchvision's weights of {name} in {file}, which cannot be had ({reason}); "
            f"put the file there (TORCH_HOME moves the folder), or take {pretrained.WITHOUT_NETWORK}"
        ) from None
    return pretrained.read_published(str(weights), file)
