"""Batch norm fused into the convolution before it: the same logits from fewer passes over memory."""

import copy
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from toolkit.system import device

TOLERANCE = 1e-3  # of the largest logit


@torch.no_grad()
def fuse(model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """A new model with every batch norm fused into the convolution before it. `model` must be in eval mode.

    `model` itself does not change; the two share all other layers. `model` is returned if torch.fx cannot trace its
    code (a path that depends on pixels, say), if the logits of `inputs`, a few photographs, would change, or if there
    is nothing to fuse. A model that has the attribute `is_fused` is returned, too: to trace a model changes nn.Module
    for all threads meanwhile, so it must not happen while other threads answer requests.
    """
    is_done = isinstance(model, fx.GraphModule) or getattr(model, "is_fused", False)
    if is_done or not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return model
    try:
        fused = _fused(model)
        with device.exact_float32():  # TF32 rounds the weights of both differently: deep nets differ by 1e-3 and more
            logits, again = model(inputs), fused(inputs)
    except Exception:  # the model's own code may raise anything when it meets a symbol instead of a tensor
        return model
    return fused if (logits - again).abs().max() <= TOLERANCE * logits.abs().max() else model


def _fused(model: nn.Module) -> nn.Module:
    traced = fx.symbolic_trace(model)
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for norm in traced.graph.nodes:
        convolution = norm.args[0] if norm.args else None
        if not isinstance(convolution, fx.Node) or len(convolution.users) > 1:
            continue  # another layer wants the convolution's own output
        pair = [modules.get(node.target) if node.op == "call_module" else None for node in (convolution, norm)]
        kinds = [type(module) for module in pair]
        # A layer that is called twice may be followed by another norm the second time.
        if kinds == [nn.Conv2d, nn.BatchNorm2d] and calls[convolution.target] == calls[norm.target] == 1:
            parent, _, name = convolution.target.rpartition(".")
            setattr(traced.get_submodule(parent), name, fuse_conv_bn_eval(*pair))
            norm.replace_all_uses_with(convolution)
            traced.graph.erase_node(norm)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def cast(model: nn.Module, precision: torch.dtype) -> nn.Module:
    """A copy of the model with weights of another precision. Its inputs must have that precision too."""
    return copy.deepcopy(model).to(precision)
