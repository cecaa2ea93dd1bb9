"""From stored pixels to the net's input, for a whole batch at once: the preprocessing, and augmentation by policy.

Every photograph has draws of its own, which depend on nothing but (seed, epoch, its place in the epoch's order): not on
the batch that it falls into, the number of processes, or where a run was interrupted.
"""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Policy:
    """How far augmentation goes; 0 switches a part off."""

    flip: float = 0.0  # probability of a left-right flip
    shift: float = 0.0  # farthest shift, as a share of height and width
    scale: float = 0.0  # largest change of scale: 0.1 is from 1/1.1 to 1.1
    brightness: float = 0.0  # largest change, in standard deviations of the pixels
    contrast: float = 0.0  # largest change, likewise as 0.2 for 1/1.2 to 1.2
    erase: float = 0.0  # probability that a rectangle of up to 40 % of height and width is blanked


POLICIES = {
    "none": Policy(),
    "flip": Policy(flip=0.5),
    "light": Policy(flip=0.5, shift=0.06, scale=0.08, brightness=0.3, contrast=0.2),
    "strong": Policy(flip=0.5, shift=0.1, scale=0.15, brightness=0.6, contrast=0.4, erase=0.25),
}
DRAWS = ("flip", "down", "right", "scale", "brightness", "contrast", "erase", "top", "left", "height", "width")


MIXES = ("none", "mixup", "cutmix")
MIXED = 0.5  # share of photographs that are mixed


def draw(seed: int, epoch: int, count: int) -> torch.Tensor:
    """Uniform numbers in [0, 1): float32, shape (count, len(DRAWS)); row i is of the i-th photograph of the epoch."""
    return torch.from_numpy(np.random.default_rng([seed, epoch, 1]).random((count, len(DRAWS)), np.float32))


def prepare(
    pixels: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    policy: Policy | None = None,
    draws: torch.Tensor | None = None,
) -> torch.Tensor:
    """The net's input: float32, shape (b, 3, height, width), laid out channels last.

    `pixels` are uint8, shape (b, height, width, 3); `mean` and `std`, shape (3,), are of the channels of pixels in
    0..1; `draws` are rows of `draw`, shape (b, len(DRAWS)). All are on one device.
    """
    batch, height, width, _ = pixels.shape
    gain, offset = 1 / (255 * std), -mean / std
    if policy is not None and policy != Policy():
        draws = dict(zip(DRAWS, draws[:, :, None].unbind(1), strict=True))  # each (b, 1)
        pixels = _warp(pixels, draws, policy)
        # Light: brighter and steeper around the mean, folded into the one multiplication that normalises.
        contrast = (1 + policy.contrast) ** (2 * draws["contrast"] - 1)
        brightness = policy.brightness * (2 * draws["brightness"] - 1)
        gain, offset = gain * contrast, offset * contrast + brightness  # (b, 3)
    # Over whole rows and not over pixels: to repeat so short a thing as three channels costs four times as much.
    gain, offset = (value.expand(batch, 3).repeat(1, width)[:, None] for value in (gain, offset))  # (b, 1, width * 3)
    rows = pixels.reshape(batch, height, width * 3).float()
    result = torch.addcmul(offset, rows, gain).view(batch, height, width, 3)
    if policy is not None and policy.erase:
        _erase(result, draws, policy)
    return result.permute(0, 3, 1, 2)


def to_pixels(inputs: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> np.ndarray:
    """What `prepare` made its input of, but for rounding and what lies beyond 0..255: uint8, (b, height, width, 3)."""
    return ((inputs.permute(0, 2, 3, 1) * std + mean).clamp(0, 1) * 255).round().byte().cpu().numpy()


def mix_shares(how: str, seed: int, epoch: int, count: int) -> torch.Tensor:
    """How much of the i-th photograph of the epoch stays when it is mixed with another: float32, shape (count,).

    1 is all of it; "cutmix" keeps a half, "mixup" what a Beta(1/2, 1/2) says.
    """
    rng = np.random.default_rng([seed, epoch, 2])
    mixed = rng.random(count) < MIXED
    kept = np.sin(np.pi / 2 * rng.random(count)) ** 2 if how == "mixup" else np.full(count, 0.5)  # arcsine law
    return torch.from_numpy(np.where(mixed, kept, 1.0).astype(np.float32))


def mix(how: str, first: torch.Tensor, second: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Each photograph of `first` mixed with that of `second`, both (b, 3, height, width), by its share `kept`, (b,).

    "mixup" blends them (Zhang et al., 2018). "cutmix" puts the right half of the second beside the left half of the
    first (after Yun et al., 2019): a cut from top to bottom, which leaves half of the mask, and half of all that tells
    gender and age, of each.
    """
    share = kept[:, None, None, None]
    if how == "mixup":
        return torch.lerp(second, first, share)
    left = torch.arange(first.shape[3], device=first.device) < first.shape[3] // 2
    return torch.where(left | (share == 1), first, second)


def _warp(pixels: torch.Tensor, draws: dict, policy: Policy) -> torch.Tensor:
    """Flip, shift and scale by taking each row and column from the nearest one in the photograph.

    Nearest and not bilinear: a photograph keeps its own sharpness, as validation sees it, and bytes stay bytes, which
    costs a fraction of sampling an affine grid. What comes from beyond the edge repeats the edge.
    """
    batch, height, width, _ = pixels.shape
    scale = (1 + policy.scale) ** (2 * draws["scale"] - 1)

    def source(length: int, shift: torch.Tensor) -> torch.Tensor:  # (b, length): where each row or column comes from
        centre = (length - 1) / 2
        place = torch.arange(length, device=pixels.device) - centre
        place = place / scale + centre + length * policy.shift * (2 * shift - 1)
        return place.round().int().clamp(0, length - 1)

    rows, columns = source(height, draws["down"]), source(width, draws["right"])
    columns = torch.where(draws["flip"] < policy.flip, columns.flip(1), columns)
    first = torch.arange(batch, dtype=torch.int32, device=pixels.device)[:, None] * height  # row of each photograph
    places = (first + rows)[:, :, None] * width + columns[:, None, :]  # (b, height, width), in pixels of the batch
    return pixels.reshape(-1, 3).index_select(0, places.view(-1)).view(pixels.shape)


def _erase(batch: torch.Tensor, draws: dict, policy: Policy) -> None:
    """Blank a rectangle (to 0, the mean colour) of some of the photographs (b, height, width, 3), in place."""

    def inside(length: int, start: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        place = torch.arange(length, device=batch.device) / length
        extent = 0.1 + 0.3 * share
        begin = start * (1 - extent)
        return (place >= begin) & (place < begin + extent)

    rows = inside(batch.shape[1], draws["top"], draws["height"])
    columns = inside(batch.shape[2], draws["left"], draws["width"])
    chosen = draws["erase"][:, :, None] < policy.erase
    batch.masked_fill_((chosen & rows[:, :, None] & columns[:, None, :])[..., None], 0.0)
