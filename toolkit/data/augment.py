"""From stored pixels to the model's input, for a whole batch at once: preprocessing, and augmentation by policy.

Every photograph has random numbers of its own, a function of (seed, epoch, position in the epoch's order). They do not
depend on the batch size, the number of processes, or where a run was interrupted. torchvision's v2 transforms are not
used, because they draw random numbers once for a whole batch.
"""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Policy:
    """How strong augmentation is; 0 switches a part off."""

    flip: float = 0.0  # probability of a left-right flip
    shift: float = 0.0  # largest shift, as a share of height and width
    scale: float = 0.0  # largest change of scale: 0.1 is from 1/1.1 to 1.1
    brightness: float = 0.0  # largest change, in standard deviations of the pixels
    contrast: float = 0.0  # largest change of the slope: 0.2 is from 1/1.2 to 1.2
    erase: float = 0.0  # probability that a rectangle of up to 40 % of height and width is blanked


POLICIES = {
    "none": Policy(),
    "flip": Policy(flip=0.5),
    "light": Policy(flip=0.5, shift=0.06, scale=0.08, brightness=0.3, contrast=0.2),
    "strong": Policy(flip=0.5, shift=0.1, scale=0.15, brightness=0.6, contrast=0.4, erase=0.25),
}
DRAWS = ("flip", "down", "right", "scale", "brightness", "contrast", "erase", "top", "left", "height", "width")
MIXED = 0.5  # share of photographs that are mixed with another

# The last number of each generator's seed, so that no two purposes share their random numbers.
ORDER_STREAM, DRAWS_STREAM, LAM_STREAM, PERMUTATION_STREAM = range(4)


def draw(seed: int, epoch: int, count: int) -> torch.Tensor:
    """Uniform numbers in [0, 1): float32, shape (count, len(DRAWS)), a row for each position in the epoch's order."""
    generator = np.random.default_rng([seed, epoch, DRAWS_STREAM])
    return torch.from_numpy(generator.random((count, len(DRAWS)), np.float32))


def prepare(
    pixels: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    policy: Policy | None = None,
    draws: torch.Tensor | None = None,
) -> torch.Tensor:
    """The model's input, (pixels / 255 - mean) / std: float32, shape (b, 3, height, width), laid out channels last.

    On Apple's GPU channels come first (toolkit/models/placement.py).
    `pixels` are uint8, shape (b, height, width, 3); `mean` and `std`, shape (3,), are of channels from 0 to 1; `draws`
    are rows of `draw`, shape (b, len(DRAWS)). All are on one device.
    """
    return apply(pixels, *plan(pixels.shape[1:3], mean, std, policy, draws))


def plan(
    size: tuple[int, int],
    mean: torch.Tensor,
    std: torch.Tensor,
    policy: Policy | None = None,
    draws: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """The tensors that `apply` needs for photographs of `size` = (height, width): a row for each, or one row for all.

    Make one plan for many batches: it takes 40 small operations, each of which Python must launch on a GPU.
    """
    gain, offset = (1 / (255 * std))[None], (-mean / std)[None]
    if policy is None or policy == Policy():
        return [gain, offset]
    draws = dict(zip(DRAWS, draws[:, :, None].unbind(1), strict=True))  # each (n, 1)
    # Brightness and contrast are folded into the one multiply-add that normalises: they cost no further pass.
    contrast = _power(1 + policy.contrast, draws["contrast"])
    brightness = policy.brightness * (2 * draws["brightness"] - 1)
    erased = _erased(size, draws, policy) if policy.erase else []
    return [gain * contrast, offset * contrast + brightness, *_sources(size, draws, policy), *erased]


def apply(
    pixels: torch.Tensor,
    gain: torch.Tensor,
    offset: torch.Tensor,
    rows: torch.Tensor | None = None,
    columns: torch.Tensor | None = None,
    erased_rows: torch.Tensor | None = None,
    erased_columns: torch.Tensor | None = None,
) -> torch.Tensor:
    """The model's input, as `prepare` gives it, from rows of a `plan`."""
    batch, height, width, _ = pixels.shape
    if rows is not None:
        # One gather over all pixels of the batch as a flat list; int32 indices halve what it reads.
        each = height * width
        first = torch.arange(0, batch * each, each, dtype=torch.int32, device=pixels.device)
        index = (first[:, None] + rows)[:, :, None] + columns[:, None, :]  # (b, height, width)
        pixels = pixels.reshape(-1, 3).index_select(0, index.view(-1)).view(pixels.shape)
    # Repeated to a whole row of pixels, not broadcast: broadcasting over three channels takes four times as long.
    gain, offset = (value.expand(batch, 3).repeat(1, width)[:, None] for value in (gain, offset))  # (b, 1, width * 3)
    result = torch.addcmul(offset, pixels.reshape(batch, height, width * 3).float(), gain).view(batch, height, width, 3)
    if erased_rows is not None:  # 0 is the mean colour
        result.masked_fill_((erased_rows[:, :, None] & erased_columns[:, None, :])[..., None], 0.0)
    result = result.permute(0, 3, 1, 2)
    return result.contiguous() if result.is_mps else result


def to_pixels(inputs: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> np.ndarray:
    """The inverse of `prepare`, rounded and clamped to 0..255: uint8, shape (b, height, width, 3)."""
    return ((inputs.permute(0, 2, 3, 1) * std + mean).clamp(0, 1) * 255).round().byte().cpu().numpy()


def draw_lam(how: str, seed: int, epoch: int, count: int) -> torch.Tensor:
    """The share lam of each photograph when it is mixed with another: float32, shape (count,).

    It is 1 for half of them, which are not mixed; for the others 0.5 with "cutmix", a draw of Beta(1/2, 1/2) with
    "mixup".
    """
    generator = np.random.default_rng([seed, epoch, LAM_STREAM])
    mixed = generator.random(count) < MIXED
    # Beta(1/2, 1/2) is the arcsine law: sin^2(pi u / 2) of a uniform u.
    lam = np.sin(np.pi / 2 * generator.random(count)) ** 2 if how == "mixup" else np.full(count, 0.5)
    return torch.from_numpy(np.where(mixed, lam, 1.0).astype(np.float32))


def mix(how: str, first: torch.Tensor, second: torch.Tensor, lam: torch.Tensor) -> torch.Tensor:
    """lam of each photograph in `first` and 1 - lam of that in `second`: shapes (b, 3, height, width), lam (b,).

    "mixup" blends them (Zhang et al., 2018). "cutmix" puts the right half of the second beside the left half of the
    first (after Yun et al., 2019): the cut runs from top to bottom, so that half of both faces remains, with what shows
    mask, gender and age.
    """
    lam = lam[:, None, None, None]
    if how == "mixup":
        return torch.lerp(second, first, lam)
    left = torch.arange(first.shape[3], device=first.device) < first.shape[3] // 2
    return torch.where(left | (lam == 1), first, second)


def _power(base: float, draws: torch.Tensor) -> torch.Tensor:
    """base ** (-1 to 1), in float64: in float32, a number's last bit depends on its place in the tensor.

    Apple's GPU has no float64.
    """
    wide = torch.float32 if draws.is_mps else torch.float64
    return (base ** (2 * draws.to(wide) - 1)).float()


def _sources(size: tuple[int, int], draws: dict, policy: Policy) -> list[torch.Tensor]:
    """Flip, shift and scale: the nearest row and column of the photograph for each one of the result.

    Rows are given as the first pixel of the row in the flat list of pixels, int32 (n, height); columns int32 (n,
    width).

    Nearest, not bilinear: photographs stay as sharp as in validation, and stay uint8, at a fraction of the cost of an
    affine grid. Beyond the edge, the edge is repeated.
    """
    scale = _power(1 + policy.scale, draws["scale"])

    def source(length: int, shift: torch.Tensor) -> torch.Tensor:
        centre = (length - 1) / 2
        position = torch.arange(length, device=shift.device) - centre
        position = position / scale + centre + length * policy.shift * (2 * shift - 1)
        return position.round().int().clamp(0, length - 1)

    height, width = size
    columns = source(width, draws["right"])
    columns = torch.where(draws["flip"] < policy.flip, columns.flip(1), columns)
    return [source(height, draws["down"]) * width, columns]


def _erased(size: tuple[int, int], draws: dict, policy: Policy) -> list[torch.Tensor]:
    """The blanked rectangle: its rows, bool (n, height), and columns, bool (n, width). Most have no rows."""

    def inside(length: int, start: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        position = torch.arange(length, device=start.device) / length
        extent = 0.1 + 0.3 * share
        begin = start * (1 - extent)
        return (position >= begin) & (position < begin + extent)

    height, width = size
    rows, columns = inside(height, draws["top"], draws["height"]), inside(width, draws["left"], draws["width"])
    return [rows & (draws["erase"] < policy.erase), columns]
