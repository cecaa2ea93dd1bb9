"""Convolutions done otherwise than by oneDNN: the same numbers, forwards and backwards."""

import copy

import pytest
import torch
from torch import nn

from toolkit.models import cpu_convolution


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        (3, 1, 1, (4, 3)), (3, 2, 1, (8, 6)), (1, 1, 0, (4, 4)), (1, 2, 0, (7, 5)),
        ((1, 3), (2, 1), (0, 1), (4, 3)), (3, 2, 0, (7, 7)),
    ],
)  # fmt: skip
def test_the_product_is_the_convolution(kernel, stride, padding, size, dtype, monkeypatch):
    monkeypatch.setattr(cpu_convolution, "LEAST_WEIGHTS", 1)
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 6, kernel, stride, padding).to(dtype)
    product = copy.deepcopy(plain)
    cpu_convolution.speed_up(product)
    monkeypatch.setattr(product, "_conv_forward", None)  # must not be needed
    results = []
    for layer in (plain, product):
        inputs = torch.randn(5, 8, *size, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        out = layer(inputs)
        (out.float() ** 2).sum().backward()
        results.append((out, inputs.grad, layer.weight.grad, layer.bias.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, **({} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.1}))


def test_only_large_weights_over_small_maps_and_plain_layers():
    net = nn.Sequential(
        nn.Conv2d(512, 512, 3), nn.Conv2d(3, 64, 7), nn.Conv2d(1024, 2048, 1, groups=2),
        nn.Conv2d(512, 512, 3, dilation=2),
    )  # fmt: skip
    cpu_convolution.speed_up(net)
    assert ["forward" in vars(layer) for layer in net] == [True, False, False, False]
    large = torch.randn(1, 512, 9, 9)
    torch.testing.assert_close(net[0](large), nn.functional.conv2d(large, net[0].weight, net[0].bias))
    assert list(copy.deepcopy(net).state_dict()) == list(net.state_dict())
    other = copy.deepcopy(net)[0]
    nn.init.zeros_(other.weight), nn.init.zeros_(other.bias)
    assert not other(torch.randn(1, 512, 3, 3)).any()  # a copy computes with its own weights


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 1), (5, 2), (7, 1)])
def test_gradients_of_depthwise_convolutions_in_bf16_are_those_of_float32(kernel, stride, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 16, kernel, stride, kernel // 2, groups=8, bias=bias)
    fast = copy.deepcopy(plain)
    cpu_convolution.speed_up(fast)
    pixels = torch.randn(4, 8, 9, 7).bfloat16().float().to(memory_format=torch.channels_last)
    rounded = copy.deepcopy(plain)  # the same weights as bf16 has them, in float32
    with torch.no_grad():
        rounded.weight.copy_(rounded.weight.bfloat16())
    found = []
    for layer, precision in ((rounded, torch.float32), (fast, torch.bfloat16)):
        inputs = pixels.clone().requires_grad_()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            out = layer(inputs)
        assert out.dtype == precision
        (3.0 * out).sum().backward()  # a gradient that bf16 holds exactly
        found.append([inputs.grad, layer.weight.grad, *([layer.bias.grad] if bias else [])])
        assert layer.weight.grad.dtype == torch.float32
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-4)


def test_only_depthwise_layers_that_are_slow_in_bf16_and_only_while_they_learn():
    net = nn.Sequential(
        nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 8, 5, 1, 2, groups=4),
        nn.Conv2d(8, 8, 5, 1, 2, groups=8, padding_mode="reflect"),
    )  # fmt: skip
    cpu_convolution.speed_up(net)
    assert ["forward" in vars(layer) for layer in net] == [True, False, False, False]
    pixels = torch.randn(2, 8, 6, 6)
    assert net[0](pixels).dtype == torch.float32  # without autocast it is the plain layer
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert net[0](pixels).dtype == torch.bfloat16
    other = copy.deepcopy(net)[0]
    nn.init.zeros_(other.weight), nn.init.zeros_(other.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert not other(pixels).any()  # a copy computes with its own weights
