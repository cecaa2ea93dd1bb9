"""Saliency of a net whose evidence is known."""

import torch
from torch import nn

from toolkit.pages.parts import grad_cam


def test_saliency_is_high_where_the_evidence_of_the_class_is():
    """A net that sees class 1 in a bright top left corner, and class 0 in a bright bottom right one."""
    net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2, bias=False))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        places = torch.zeros(2, 8, 8)
        places[1, :3, :3], places[0, 5:, 5:] = 1.0, 1.0
        net[3].weight.copy_(places.flatten(1))
    photograph = torch.zeros(1, 3, 8, 8)
    photograph[:, :, :3, :3] = 1.0
    (saliency,) = grad_cam.saliency(net, photograph, torch.tensor([1]))
    assert saliency[:3, :3].min() == 1 and saliency[4:, 4:].max() == 0
