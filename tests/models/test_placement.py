"""What is otherwise on Apple's GPU, tried without one."""

import copy

import pytest
import torch
from metal import metal
from torch import nn

from toolkit.data import augment
from toolkit.models import placement
from toolkit.system.device import Machine


@pytest.fixture
def to_metal(monkeypatch):
    """Makes a net ready for that GPU, and leaves it where it is."""
    to = nn.Module.to
    monkeypatch.setattr(nn.Module, "to", lambda net, _, **options: to(net, **options))
    return lambda net: placement.to_device(net, Machine(torch.device("mps"), torch.float32))


def test_batch_norm_of_apples_gpu_gets_no_channels_last_of_which_its_gradients_are_wrong(to_metal):
    layouts = []
    net = to_metal(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)))
    for norm in (net[1], net[3]):
        norm.register_forward_pre_hook(lambda _, given: layouts.append(given[0].is_contiguous()))
    pixels = torch.zeros(2, 12, 10, 3, dtype=torch.uint8)
    net(augment.prepare(metal(pixels), torch.zeros(3), torch.ones(3)))
    assert layouts == [True, True]


def test_vggs_pooling_which_apples_gpu_cannot_do_gives_the_same_on_the_cpu(to_metal, monkeypatch):
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d((7, 7)), nn.AdaptiveAvgPool2d(1))
    net = copy.deepcopy(to_metal(copy.deepcopy(plain)))
    moved, to_cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(tuple(tensor.shape)) or to_cpu(tensor))
    inputs = torch.rand(2, 3, 4, 3)
    assert torch.equal(net(inputs), plain(inputs))
    assert moved == [(2, 8, 4, 3)]
