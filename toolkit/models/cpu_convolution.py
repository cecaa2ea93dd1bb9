"""Faster ways for convolutions that are slow in oneDNN, torch's CPU library. Weights and state dict do not change.

Many channels over maps of a few pixels: oneDNN takes the photographs of a batch one by one, and reads all weights from
memory for each. At 4 x 3 pixels and 512 channels, the last stage of a resnet at 128x96, that takes two to three times
as long as one matrix product for the whole batch; with it resnet18 trains some 20 % faster. Larger maps gain nothing.

Depthwise convolutions in bf16: oneDNN has no fast gradient by the inputs at stride 2, nor by weights of 5 x 5 and more.
They take 4 to 50 times as long as in float32, so we compute them in float32 (benchmarks/depthwise.py).
"""

import types

import torch
import torch.nn.functional as F
from torch import nn

MOST_PIXELS = 16  # of the output map
LEAST_WEIGHTS = 2**20  # more than the caches next to a core hold


def speed_up(model: nn.Module) -> None:
    """Replace `forward` of each convolution that may gain, in place; the new one chooses the way by its inputs."""
    for layer in model.modules():
        if type(layer) is not nn.Conv2d:
            continue
        if layer.weight.numel() >= LEAST_WEIGHTS and _is_plain(layer):
            layer.forward = types.MethodType(_as_matrix_product, layer)
        elif _is_depthwise(layer) and (max(layer.stride) > 1 or max(layer.kernel_size) > 3):
            layer.forward = types.MethodType(_with_float32_gradients, layer)


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and isinstance(layer.padding, tuple)
        and layer.padding_mode == "zeros"
    )


def _is_depthwise(layer: nn.Conv2d) -> bool:
    return layer.groups == layer.in_channels > 1 and isinstance(layer.padding, tuple) and layer.padding_mode == "zeros"


def _as_matrix_product(layer: nn.Conv2d, inputs: torch.Tensor) -> torch.Tensor:
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


def _with_float32_gradients(layer: nn.Conv2d, inputs: torch.Tensor) -> torch.Tensor:
    if not torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
        return layer._conv_forward(inputs, layer.weight, layer.bias)
    inputs = inputs.to(torch.get_autocast_dtype("cpu"))
    options = layer.stride, layer.padding, layer.dilation, layer.groups
    outputs = _Float32Gradients.apply(inputs, layer.weight, options)
    return outputs if layer.bias is None else outputs + layer.bias[:, None, None].to(outputs.dtype)


class _Float32Gradients(torch.autograd.Function):
    """A convolution in the precision of its inputs, with gradients that are computed in float32."""

    @staticmethod
    def forward(context, inputs: torch.Tensor, weight: torch.Tensor, options: tuple) -> torch.Tensor:
        context.save_for_backward(inputs, weight)
        context.options = options
        return F.conv2d(inputs, weight.to(inputs.dtype), None, *options)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight = context.saved_tensors
        stride, padding, dilation, groups = context.options
        by_inputs, by_weight, _ = torch.ops.aten.convolution_backward(
            gradient.float(), inputs.float(), weight, None, stride, padding, dilation, False, (0, 0), groups,
            (*context.needs_input_grad[:2], False),
        )  # fmt: skip
        return None if by_inputs is None else by_inputs.to(inputs.dtype), by_weight, None
