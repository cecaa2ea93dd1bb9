"""The backbones: built by their torchvision names, with a fresh head, from ImageNet weights or from scratch.

To add a net of your own, name the function that builds it in OWN: outputs -> module of logits (b, outputs).

torch and torchvision take seconds to import; the functions that need them do it, so that a wrong name is answered at
once. A net of your own may import them wherever it likes.
"""

from __future__ import annotations

import importlib.util
import pathlib
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from toolkit.labels import CLASSES
from toolkit.system.console import InputError

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum

BACKBONES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2",
    "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "alexnet",
)  # fmt: skip
# Of them, those that end in wide layers without a norm: they get a fifth of the learning rate of the others. At the
# whole rate the loss of vgg16_bn leapt to 42 and it learned nothing in an epoch of drawn faces, at a fifth it did.
WIDE_AT_THE_END = tuple(name for name in BACKBONES if name.startswith(("vgg", "alexnet")))
OWN = {}
IMAGENET_CLASSES = 1000


def names() -> list[str]:
    """The backbones of this project, those of your own, then every other classification model of torchvision."""
    folder = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent / "models"
    registered = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
    sources = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))]
    return list(dict.fromkeys([*BACKBONES, *OWN, *(name for source in sources for name in registered.findall(source))]))


def build(name: str, size: tuple[int, int], pretrained: bool, head: str = "flat") -> tuple[nn.Module, str]:
    """The net with a fresh head, and which weights it starts from ("none" or torchvision's name).

    It takes float inputs of shape (b, 3, height, width) and gives logits of shape (b, 18); with the factored head more
    columns follow (toolkit/factored.py). Raises InputError where the net does not take photographs of `size`, or its
    ImageNet weights cannot be had.
    """
    if not pretrained:
        net, weights = _with_head(name, size, None, head), None
    elif name in OWN:
        raise InputError(f"PRETRAINED=true: {name} has no ImageNet weights; set PRETRAINED=false")
    else:
        net, weights = _from_imagenet(name, size, head)
    refuse_unfit_size(net, name, size)
    return net, str(weights or "none")


def load(file: pathlib.Path) -> tuple[nn.Module, dict]:
    """The net of a run's `model.safetensors`, on the CPU, and the file's header. Raises InputError if it is no such."""
    import torchvision

    from toolkit.runs import checkpoint

    state, header = checkpoint.load_weights(file)
    if header["backbone"] not in names():
        raise InputError(
            f"{file}: expected a net that torchvision {torchvision.__version__} knows, found {header['backbone']}"
        )
    build = partial(_with_head, header["backbone"], header["size"], None, header["head"])
    try:
        if header["backbone"] in OWN:  # which may do with its tensors what only real ones can
            net = build()
            checkpoint.restore(net, state)
        else:
            net = filled(build, state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{file}: the weights do not fit {header['backbone']}: {reason}") from None
    return net, header


def filled(build: Callable[[], nn.Module], state: dict) -> nn.Module:
    """A net of torchvision with this state: first weights, which it overwrites, are not drawn. Raises RuntimeError."""
    import torch

    from toolkit.runs import checkpoint

    try:
        with torch.device("meta"):
            net = build()
    except NotImplementedError:  # a builder that looks at values (regnet)
        net = build()
    checkpoint.restore(net, state, assign=True)
    if any(tensor.is_meta for tensor in (*net.parameters(), *net.buffers())):  # a net that keeps some out of its state
        net = build()
        checkpoint.restore(net, state)
    return net


def refuse_unfit_size(net: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Raises InputError where the net does not take photographs of this size. Tried without computing anything."""
    import torch

    shadow = {key: torch.empty_like(value, device="meta") for key, value in net.state_dict().items()}
    try:
        torch.func.functional_call(net, shadow, torch.empty(2, 3, *size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        height, width = size
        raise InputError(f"NAME={name} does not take SIZE={height}x{width}: {_first_line(error)}") from None


def _from_imagenet(name: str, size: tuple[int, int], head: str) -> tuple[nn.Module, WeightsEnum]:
    import torch
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    file = pathlib.Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        # First read as weights and nothing else: torchvision's builders unpickle whatever the file holds.
        weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # no network, a wrong hash, a damaged or hostile file: the way on is the same
        raise InputError(
            f"PRETRAINED=true: expected torchvision's weights of {name} in {file}, which cannot be had "
            f"({_first_line(error)}); put the file there (TORCH_HOME moves the folder), or set PRETRAINED=false to "
            f"train from scratch"
        ) from None
    try:
        return _with_head(name, size, weights, head), weights
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        height, width = size
        raise InputError(
            f"PRETRAINED=true: the weights in {file} do not fit NAME={name} at SIZE={height}x{width}: "
            f"{_first_line(error)}"
        ) from None


def _with_head(name: str, size: tuple[int, int], weights, head: str) -> nn.Module:
    if head == "flat":
        return _with_outputs(name, size, weights, CLASSES)
    from toolkit.models import factored_head

    return factored_head.Factored(_with_outputs(name, size, weights, sum(factored_head.PARTS)))


def _with_outputs(name: str, size: tuple[int, int], weights, outputs: int) -> nn.Module:
    """The net with a fresh last layer. What the weights do not hold is the same with and without them, for `load`."""
    import torchvision

    if name in OWN:
        return OWN[name](outputs)
    options = {}
    if name.startswith("vit_"):  # made for square photographs of one size
        options["image_size"] = size[0]
    if name in ("inception_v3", "googlenet"):
        options["init_weights"] = False  # slow, and torchvision warns of it
    net = torchvision.models.get_model(name, weights=weights, **options)
    if name in ("inception_v3", "googlenet"):
        net.transform_input = False  # ours are normalised already
        net.aux_logits = False  # auxiliary classifiers would give training another form of output
        for part in ("aux1", "aux2", "AuxLogits"):
            if hasattr(net, part):
                setattr(net, part, None)
    replace_head(net, outputs)
    return net


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def head_weights(net: nn.Module) -> list[nn.Parameter]:
    """The weights of the last layer that has any: all that pretraining does not know of."""
    return list([layer for layer in net.modules() if list(layer.parameters(recurse=False))][-1].parameters())


def replace_head(net: nn.Module, classes: int) -> None:
    """Put a fresh last layer of so many classes in place of the one of 1,000, whatever it is called.

    Raises InputError where there is no linear layer or 1 x 1 convolution of 1,000 outputs.
    """
    from torch import nn

    for path, layer in reversed(list(net.named_modules())):
        parent, _, attribute = path.rpartition(".")
        if isinstance(layer, nn.Linear) and layer.out_features == IMAGENET_CLASSES:
            head = nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == IMAGENET_CLASSES:
            head = nn.Conv2d(layer.in_channels, classes, layer.kernel_size)
        else:
            continue
        setattr(net.get_submodule(parent), attribute, head)
        return
    raise InputError(f"{type(net).__name__}: expected a last layer of {IMAGENET_CLASSES} classes, found none")
