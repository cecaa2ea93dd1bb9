"""A model on its device: memory layout, faster convolutions, and compilation."""

import types

import torch
import torch.nn.functional as F
from torch import nn

from toolkit.models import cpu_convolution
from toolkit.system.console import InputError, first_line, say
from toolkit.system.device import Machine

COMPILE_FROM_STEPS = 10_000  # a run of so many steps wins back the minute that compiling costs


def to_device(model: nn.Module, machine: Machine) -> nn.Module:
    """Move the model to the device, in place, with weights in the layout that is fastest there. Returns it.

    The layout is channels last, except on Apple's GPU: there, with channels-last inputs, batch norm's gradients are
    wrong, or an error, in torch 2.11 and later (pytorch#175189).
    """
    if machine.device.type == "cpu":
        cpu_convolution.speed_up(model)
    layout = torch.channels_last
    if machine.device.type == "mps":
        layout = torch.contiguous_format
        for layer in model.modules():
            if type(layer) is nn.AdaptiveAvgPool2d and layer.output_size not in (1, (1, 1)):
                layer.forward = types.MethodType(_pooled_on_cpu, layer)
    return model.to(machine.device, memory_format=layout)


def _pooled_on_cpu(layer: nn.AdaptiveAvgPool2d, inputs: torch.Tensor) -> torch.Tensor:
    """Apple's GPU cannot do it if no size is a multiple of the other: vgg's 7 x 7 of 4 x 3 pixels (pytorch#96056)."""
    return F.adaptive_avg_pool2d(inputs.cpu(), layer.output_size).to(inputs.device)


def compiled(model: nn.Module, machine: Machine, setting: str, steps: int) -> nn.Module:
    """The model for training as COMPILE says: "true", "false", or "auto" (in long runs on CUDA, never on a CPU).

    It shares its weights with `model`. Raises InputError if "true" is asked for and torch.compile does not work here.
    """
    worth_it = machine.device.type == "cuda" and steps >= COMPILE_FROM_STEPS
    if setting == "false" or (setting == "auto" and not worth_it):
        return model
    try:  # it needs a C compiler, and Triton on a GPU: try it on a small function first
        torch.compile(lambda number: number + 1)(torch.zeros(1, device=machine.device))
    except Exception as error:
        reason = first_line(error)
        if setting == "true":
            raise InputError(f"COMPILE=true: torch.compile does not work here ({reason}); set COMPILE=false") from None
        say(f"note: the model is not compiled, as torch.compile does not work here ({reason})")
        return model
    say("compiling the model: its first steps take a minute or more")
    return torch.compile(model, dynamic=False)  # batches have two sizes at most, so two compilations
