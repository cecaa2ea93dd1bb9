"""Where a net looks: Grad-CAM (Selvaraju et al., 2017)."""

import numpy as np
import torch
from torch import nn

LEAST_SIDE = 6  # places along the longer side of a map that still shows where: the last one may be of 2 x 2


def heat(net: nn.Module, inputs: torch.Tensor, classes: torch.Tensor) -> np.ndarray | None:
    """How much each place of the last feature map that is not too coarse speaks for a class of each photograph.

    `inputs` are the net's, shape (b, 3, height, width); `classes` int64, shape (b,). Gives float32 from 0 to 1, shape
    (b, h, w) of the feature map, the highest place of each photograph being 1; None where the net has no such map.
    """
    maps = []

    def note(module, _inputs, output) -> None:
        # Not what vgg and alexnet blow up from fewer places.
        if not isinstance(module, nn.AdaptiveAvgPool2d) and _is_map(output, inputs):
            maps.append(output)

    hooks = [module.register_forward_hook(note) for module in net.modules() if not list(module.children())]
    try:
        net.eval()
        with torch.enable_grad():
            outputs = net(inputs.detach().requires_grad_())
        fine = [one for one in maps if max(one.shape[2:]) >= LEAST_SIDE] or maps
        if not fine:
            return None
        (slopes,) = torch.autograd.grad(outputs.gather(1, classes[:, None]).sum(), fine[-1])
    finally:
        for hook in hooks:
            hook.remove()
    weights = slopes.mean((2, 3), keepdim=True)
    found = (weights * fine[-1].detach()).sum(1).relu().float()
    return (found / found.amax((1, 2), keepdim=True).clamp(min=1e-12)).cpu().numpy()


def _is_map(output, inputs: torch.Tensor) -> bool:
    """Whether a layer gives a picture in the proportions of its photographs, of more places than one."""
    if not isinstance(output, torch.Tensor) or output.ndim != 4 or not output.requires_grad:
        return False
    (high, wide), (height, width) = output.shape[2:], inputs.shape[2:]
    return min(high, wide) > 1 and 0.5 < (high / wide) / (height / width) < 2
