"""Convolutions of many channels over maps of a few pixels, on a CPU: one matrix product for the whole batch.

oneDNN takes the photographs of such a batch one by one, and reads all weights from memory for each. At 4 x 3 pixels and
512 channels, the last stage of a resnet at 128x96, that takes two to three times as long as the product; with it
resnet18 trains some 20 % faster. Larger maps gain nothing.
"""

import types

import torch
import torch.nn.functional as F
from torch import nn

MOST_PIXELS = 16  # of the output map
LEAST_WEIGHTS = 2**20  # more than the caches next to a core hold


def use_matrix_products(model: nn.Module) -> None:
    """Let each convolution that may gain choose by the size of its input. Weights and state dict do not change."""
    for layer in model.modules():
        if type(layer) is nn.Conv2d and layer.weight.numel() >= LEAST_WEIGHTS and _is_plain(layer):
            layer.forward = types.MethodType(_forward, layer)


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and isinstance(layer.padding, tuple)
        and layer.padding_mode == "zeros"
    )


def _forward(layer: nn.Conv2d, inputs: torch.Tensor) -> torch.Tensor:
    (kernel_height, kernel_width), (down, right), (top, left) = layer.kernel_size, layer.stride, layer.padding
    height = (inputs.shape[-2] + 2 * top - kernel_height) // down + 1
    width = (inputs.shape[-1] + 2 * left - kernel_width) // right + 1
    if inputs.ndim != 4 or height * width > MOST_PIXELS:
        return layer._conv_forward(inputs, layer.weight, layer.bias)
    # Channels last throughout, so that the permutes only rename dimensions and the product reads memory in order.
    padded = F.pad(inputs.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
    patches = [
        padded[:, y : y + down * (height - 1) + 1 : down, x : x + right * (width - 1) + 1 : right]
        for y in range(kernel_height)
        for x in range(kernel_width)
    ]  # one for each position in the kernel: (b, height, width, channels)
    weight = layer.weight.permute(0, 2, 3, 1).flatten(1)
    return F.linear(torch.cat(patches, -1), weight, layer.bias).permute(0, 3, 1, 2)
