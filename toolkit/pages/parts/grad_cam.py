"""Saliency maps by Grad-CAM: what supported a prediction (Selvaraju et al., Grad-CAM, 2017)."""

import numpy as np
import torch
from torch import nn

MIN_LONGER_SIDE = 6  # of a feature map, in cells: coarser maps, such as the last with 2 x 2, do not show where


def saliency(model: nn.Module, inputs: torch.Tensor, classes: torch.Tensor) -> np.ndarray | None:
    """relu(sum over channels c of w_c * A_c), w_c being the mean over positions of d logit / d A_c.

    A is the last feature map that is fine enough. `inputs`: float32, shape (b, 3, height, width); `classes`: int64,
    shape (b,), the class of each logit. Returns float32, shape (b, h, w) as A, scaled so that the maximum of each
    photograph is 1; None where the model has no such map.
    """
    feature_maps = []

    def collect(module, _inputs, output) -> None:
        # vgg and alexnet enlarge a coarser map by adaptive pooling: its cells are no finer for it.
        if not isinstance(module, nn.AdaptiveAvgPool2d) and _is_feature_map(output, inputs):
            feature_maps.append(output)

    hooks = [module.register_forward_hook(collect) for module in model.modules() if not list(module.children())]
    try:
        model.eval()
        with torch.enable_grad():
            # Inputs need a gradient: a model whose weights are frozen would have none for its feature maps.
            logits = model(inputs.detach().requires_grad_())
        fine = [one for one in feature_maps if max(one.shape[2:]) >= MIN_LONGER_SIDE] or feature_maps
        if not fine:
            return None
        (gradients,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), fine[-1])
    finally:
        for hook in hooks:
            hook.remove()
    weights = gradients.mean((2, 3), keepdim=True)
    maps = (weights * fine[-1].detach()).sum(1).relu().float()
    return (maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)).cpu().numpy()


def _is_feature_map(output, inputs: torch.Tensor) -> bool:
    """Whether a layer's output has more than one position, and about the proportions of the photographs."""
    if not isinstance(output, torch.Tensor) or output.ndim != 4 or not output.requires_grad:
        return False
    (rows, columns), (height, width) = output.shape[2:], inputs.shape[2:]
    return min(rows, columns) > 1 and 0.5 < (rows / columns) / (height / width) < 2
