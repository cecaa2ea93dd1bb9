"""The backbones: built by their names, from trained weights or from scratch.

To add one of your own, name the function that builds it in OWN: number of outputs -> module that gives logits, shape
(b, outputs). If it can start from trained weights, it has a second parameter `pretrained`: True in training with
WEIGHTS=imagenet, False otherwise. If the module has a dictionary `pretrained_cfg`, as timm's nets have, its `mean` and
`std` normalise the inputs. The head, which is always fresh, is what its method `get_classifier` returns, as in timm's
nets; without this method it is the layer that was made last.

torch and torchvision take seconds to import, so only the functions that need them import them: a wrong name is reported
at once. A builder of your own may import them anywhere. Import modules of your own at the top of this file: then they
are part of a run's fingerprint.
"""

from __future__ import annotations

import copy
import inspect
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit.backbones import pretrained, timm_net, torchvision_net
from toolkit.backbones.pretrained import LITE
from toolkit.labels import CLASSES
from toolkit.system.console import InputError, first_line, listed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from toolkit.runs.weights import Header

BACKBONES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2",
    "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "alexnet",
)  # fmt: skip
OWN: dict[str, Callable[..., nn.Module]] = {}
MEAN, STD = (0.548, 0.504, 0.479), (0.237, 0.247, 0.246)  # of the contest's photographs, from its baseline


@dataclass(frozen=True)
class Start:
    """What a net starts from."""

    pretrained: str = "none"  # "none", the published name of the weights, or their file
    mean: tuple[float, ...] = MEAN  # of the channels, from 0 to 1: inputs are (x - mean) / std
    std: tuple[float, ...] = STD
    taken: dict = field(default_factory=dict)  # what was taken of it, as pretrained.load_matching returns it

    def __str__(self) -> str:
        return f"{self.pretrained} ({pretrained.describe(self.taken)})" if self.taken else self.pretrained

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file; "" without one."""
        return self.taken.get("sha256", "")


def names(like: str = "") -> list[str]:
    """The 18 backbones of this project, those in OWN, LITE, then all other classification models of torchvision.

    If `like`, the name that is looked for, begins with `timm/`, also those of timm; raises InputError if timm is not
    installed.
    """
    of_timm = timm_net.names(like) if like.startswith(timm_net.PREFIX) else []
    return list(dict.fromkeys([*BACKBONES, *OWN, LITE, *torchvision_net.names(), *of_timm]))


def build(name: str, size: tuple[int, int], weights: str = "none", head: str = "flat") -> tuple[nn.Module, Start]:
    """The model, and what it starts from: `weights` is "imagenet", "none", or a path as WEIGHTS takes it.

    Inputs are float32, shape (b, 3, height, width); outputs are logits, shape (b, 18), with more columns behind them if
    the head is factored (toolkit/models/factored_head.py). The head is fresh, unless the weights are those of a run
    with the same head. Raises InputError if the backbone does not take photographs of `size`, or the weights cannot be
    had or do not fit.
    """
    trained = _trained_weights(name, weights)
    net = _with_outputs(name, size, head, trained)
    own = getattr(net, "pretrained_cfg", {})
    start = Start("none", tuple(own.get("mean", MEAN)), tuple(own.get("std", STD)))
    if trained:
        fresh = set(head_names(net))
        if trained.by_builder:
            taken = pretrained.record_of_builder(net, trained, fresh)
        else:
            taken = pretrained.load_matching(net, trained, fresh, trained.keeps_head(head))
        mean, std = trained.header.get("mean", start.mean), trained.header.get("std", start.std)
        start = Start(trained.name, tuple(mean), tuple(std), taken)
        if weights == "imagenet" and (lacking := taken["missing"] + taken["unfit"]):
            height, width = size
            raise InputError(
                f"WEIGHTS=imagenet: {trained.name} does not fit NAME={name} at SIZE={height}x{width}: {listed(lacking)}"
            )
    refuse_unfit(net, name, size, outputs_of(head))
    return _joined(net, head), start


def refuse_lacking_weights(name: str, weights: str) -> None:
    """Raises InputError if WEIGHTS=imagenet and the builder in OWN has no ImageNet weights."""
    if weights == "imagenet" and name in OWN and not _may_be_pretrained(OWN[name]):
        raise InputError(
            f"WEIGHTS=imagenet: {name} has no ImageNet weights; set WEIGHTS=none, or to a file, or give its builder in "
            "OWN a parameter pretrained"
        )


def outputs_of(head: str) -> int:
    """The number of columns of the net's outputs."""
    from toolkit.models import factored_head

    return sum(factored_head.PARTS) if head == "factored" else CLASSES


def load(file: pathlib.Path) -> tuple[nn.Module, Header]:
    """The model of a run's `model.safetensors`, on the CPU, and the header. Raises InputError if it is no such file."""
    from toolkit.runs.weights import load_into, load_weights

    state, header = load_weights(file)
    if header.backbone not in names(header.backbone):
        raise InputError(f"{file}: expected a backbone that is known here, found {header.backbone}")

    def make() -> nn.Module:
        return _joined(_with_outputs(header.backbone, header.framing.size, header.head), header.head)

    try:
        if header.backbone in OWN or header.backbone.startswith(timm_net.PREFIX):
            # Such a builder may read values of tensors, which tensors on the meta device do not have.
            model = make()
            load_into(model, state)
        else:
            model = _filled(make, state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{file}: the weights do not fit {header.backbone}: {reason}") from None
    return model, header


def head_names(model: nn.Module) -> list[str]:
    """The names of the last layer's weights: what is fresh after pretraining."""
    named = dict(model.named_parameters())
    classifier = getattr(getattr(model, "net", model), "get_classifier", list)()  # timm's nets have it
    layers = classifier if isinstance(classifier, tuple | list) else [classifier]
    of_head = {id(weight) for layer in layers for weight in layer.parameters()}
    if found := [name for name, weight in named.items() if id(weight) in of_head]:
        return found
    last = list(named)[-1].rpartition(".")[0]
    return [name for name in named if name.rpartition(".")[0] == last]


def refuse_unfit(model: nn.Module, name: str, size: tuple[int, int], outputs: int) -> None:
    """Raises InputError if the model does not take photographs of this size, or does not give so many outputs.

    It runs on torch's meta device, which computes shapes without values, and so takes no time; on the CPU only if that
    fails.
    """
    import torch

    for device in ("meta", "cpu"):  # some nets read values
        # A copy of the model with its tensors on that device. To copy the values of a large model first would take a
        # second.
        there = {id(one): one.detach().to(device, copy=True) for one in (*model.parameters(), *model.buffers())}
        there |= {id(one): torch.nn.Parameter(there[id(one)], one.requires_grad) for one in model.parameters()}
        try:
            copied = copy.deepcopy(model, there)
        except (RuntimeError, TypeError) as error:
            raise InputError(f"NAME={name}: expected a net that copy.deepcopy copies: {first_line(error)}") from error
        try:
            found = copied(torch.zeros(2, 3, *size, device=device))
            break
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = first_line(error)
    else:
        height, width = size
        own = getattr(model, "pretrained_cfg", {}).get("input_size")  # of timm's nets: channels, height, width
        hint = f"; its own size is {own[1]}x{own[2]}" if own else ""
        raise InputError(f"NAME={name} does not take SIZE={height}x{width}: {reason}{hint}")
    if name in OWN:
        refuse_view(model, name, size)
    shape = tuple(getattr(found, "shape", ())) or type(found).__name__
    if shape != (2, outputs):
        raise InputError(
            f"NAME={name}: expected logits of shape (2, {outputs}) for 2 photographs, found {shape}; its builder is "
            f"given the number of outputs, which depends on HEAD"
        )


def refuse_view(model: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Raises InputError if the model reshapes by `view`, which fails on photographs that are laid out channels last."""
    import torch

    photographs = torch.zeros(2, 3, *size).to(memory_format=torch.channels_last)
    try:
        copy.deepcopy(model)(photographs)  # the meta device does not find it
    except (RuntimeError, ValueError, AssertionError) as error:  # others are of a net that wants a GPU, say
        if "view size is not compatible" in str(error):
            raise InputError(
                f"NAME={name}: expected a net that takes photographs laid out channels last, found one that calls view "
                "on them; write torch.flatten(x, 1) or x.reshape(...) in place of x.view(...)"
            ) from error


def _filled(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    """A torchvision model with this state. Built on the meta device, so that no random weights are drawn in vain."""
    import torch

    from toolkit.runs.weights import load_into

    try:
        with torch.device("meta"):
            model = make()
    except NotImplementedError:  # regnet's builder looks at values
        model = make()
    load_into(model, state, assign=True)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):  # it is not in the state dict
        model = make()
        load_into(model, state)
    return model


def _trained_weights(name: str, weights: str) -> pretrained.Trained | None:
    """The weights that WEIGHTS names; None for `none`. Raises InputError if they cannot be read or downloaded."""
    if weights == "none":
        return None
    if weights != "imagenet":
        return pretrained.read(weights)
    refuse_lacking_weights(name, weights)
    if name in OWN:
        return pretrained.Trained(f"those of {name}")
    if name.startswith(timm_net.PREFIX):
        return timm_net.trained_weights(name)
    if name == LITE:
        from toolkit.backbones import efficientnet_lite

        return efficientnet_lite.imagenet_weights()
    return torchvision_net.imagenet_weights(name)


def _with_outputs(name: str, size: tuple[int, int], head: str, trained: pretrained.Trained | None = None) -> nn.Module:
    """The net with a fresh last layer for this head; with trained weights only if its builder loads them itself."""
    from toolkit.backbones import efficientnet_lite

    outputs = outputs_of(head)
    by_builder = trained is not None and trained.by_builder
    if name in OWN:
        options = {"pretrained": by_builder} if _may_be_pretrained(OWN[name]) else {}
        return _with_shapes(_called(name, outputs, **options), size)
    if name == LITE:
        return efficientnet_lite.EfficientNetLite0(outputs)
    if name.startswith(timm_net.PREFIX):
        return timm_net.build(name, size, outputs, trained.file if by_builder else None)
    return torchvision_net.build(name, size, outputs, initialise=trained is None)


def _called(name: str, outputs: int, **options) -> nn.Module:
    """The module that the builder in OWN returns. Raises InputError if it is none, or has no weights that learn."""
    import torch

    try:
        inspect.signature(OWN[name]).bind(outputs, **options)
    except TypeError as error:
        raise InputError(f"NAME={name}: expected in OWN a function of the number of outputs: {error}") from error
    net = OWN[name](outputs, **options)
    if not isinstance(net, torch.nn.Module) or not any(weight.requires_grad for weight in net.parameters()):
        raise InputError(f"NAME={name}: expected of OWN a module with weights that learn, found {type(net).__name__}")
    return net


def _with_shapes(net: nn.Module, size: tuple[int, int]) -> nn.Module:
    """The same net. Its lazy layers get their shapes from a batch of photographs of this size."""
    import torch

    if any(map(torch.nn.parameter.is_lazy, (*net.parameters(), *net.buffers()))):
        with torch.no_grad():
            net.eval()(torch.zeros(2, 3, *size))
        net.train()
    return net


def _may_be_pretrained(builder: Callable[..., nn.Module]) -> bool:
    return "pretrained" in inspect.signature(builder).parameters


def _joined(net: nn.Module, head: str) -> nn.Module:
    """The model whose outputs are logits of the classes."""
    from toolkit.models import factored_head

    return factored_head.FactoredHead(net) if head == "factored" else net
