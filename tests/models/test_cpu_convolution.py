"""Convolutions as matrix products: the same numbers, forwards and backwards."""

import copy

import pytest
import torch
from torch import nn

from toolkit.models import cpu_convolution


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        (3, 1, 1, (4, 3)),
        (3, 2, 1, (8, 6)),
        (1, 1, 0, (4, 4)),
        (1, 2, 0, (7, 5)),
        ((1, 3), (2, 1), (0, 1), (4, 3)),
        (3, 2, 0, (7, 7)),
    ],
)
def test_the_product_is_the_convolution(kernel, stride, padding, size, dtype, monkeypatch):
    monkeypatch.setattr(cpu_convolution, "LEAST_WEIGHTS", 1)
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 6, kernel, stride, padding).to(dtype)
    product = copy.deepcopy(plain)
    cpu_convolution.use_matrix_products(product)
    monkeypatch.setattr(product, "_conv_forward", None)  # must not be needed
    results = []
    for layer in (plain, product):
        inputs = torch.randn(5, 8, *size, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        out = layer(inputs)
        (out.float() ** 2).sum().backward()
        results.append((out, inputs.grad, layer.weight.grad, layer.bias.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, **({} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.1}))


def test_only_large_weights_over_small_maps_and_plain_layers(monkeypatch):
    net = nn.Sequential(
        nn.Conv2d(512, 512, 3),
        nn.Conv2d(3, 64, 7),
        nn.Conv2d(1024, 2048, 1, groups=2),
        nn.Conv2d(512, 512, 3, dilation=2),
    )
    cpu_convolution.use_matrix_products(net)
    assert ["forward" in vars(layer) for layer in net] == [True, False, False, False]
    large = torch.randn(1, 512, 9, 9)
    torch.testing.assert_close(net[0](large), nn.functional.conv2d(large, net[0].weight, net[0].bias))
    assert list(copy.deepcopy(net).state_dict()) == list(net.state_dict())
    other = copy.deepcopy(net)[0]
    nn.init.zeros_(other.weight), nn.init.zeros_(other.bias)
    assert not other(torch.randn(1, 512, 3, 3)).any()  # a copy computes with its own weights
