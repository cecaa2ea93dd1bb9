"""A trained net in its fastest form for prediction."""

import copy
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


@torch.no_grad()
def fold(net: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """The net with every batch norm that follows a convolution folded into it: the same logits, but for rounding.

    `net` is in its evaluation mode and stays as it is; the two share what was not folded. A net whose code torch.fx
    cannot trace, such as one whose path depends on the pixels, is given back as it is, and so is one whose logits of
    these `inputs` (a few photographs) do not stay the same. One that was folded before, or has no batch norm, is given
    back at once.
    """
    if isinstance(net, fx.GraphModule) or not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        return net
    try:
        folded = _fold(net)
        logits, same = net(inputs), folded(inputs)
    except Exception:  # whatever its code raises on a symbol in place of a tensor
        return net
    return folded if (logits - same).abs().max() <= 1e-3 * logits.abs().max() else net


def _fold(net: nn.Module) -> nn.Module:
    traced = fx.symbolic_trace(net)
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for norm in traced.graph.nodes:
        convolution = norm.args[0] if norm.args else None
        if not isinstance(convolution, fx.Node) or len(convolution.users) > 1:
            continue
        pair = [modules.get(node.target) if node.op == "call_module" else None for node in (convolution, norm)]
        kinds = [type(module) for module in pair]
        if kinds == [nn.Conv2d, nn.BatchNorm2d] and calls[convolution.target] == calls[norm.target] == 1:
            parent, _, name = convolution.target.rpartition(".")
            setattr(traced.get_submodule(parent), name, fuse_conv_bn_eval(*pair))
            norm.replace_all_uses_with(convolution)
            traced.graph.erase_node(norm)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def cast(net: nn.Module, precision: torch.dtype) -> nn.Module:
    """A copy of the net with weights of another precision; its input must be of that too."""
    return copy.deepcopy(net).to(precision)
