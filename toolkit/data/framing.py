"""Which part of a photograph becomes the model's input, and how: SIZE, CROP and FIT, the same in all scripts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from toolkit.config.types import WHOLE, Fit, as_text, crop_box, height_and_width

SPARE = 2  # a decoder leaves this many times the height and width asked for; the antialiased resize does the rest


@dataclass(frozen=True)
class Framing:
    """The part `crop` of an upright photograph, fitted into `size`.

    "squeeze" changes its proportions. "pad" keeps them, and fills the rest of `size` by repeating the edge: a bar of
    one colour would be a new edge, and augmentation repeats the edge too. "cover" keeps them, and cuts what does not
    fit.
    """

    size: tuple[int, int]  # height, width in pixels
    crop: tuple[float, float, float, float] = WHOLE  # top, left, bottom, right: shares of its height and width
    fit: Fit = "squeeze"

    def __str__(self) -> str:
        parts = [as_text(self.size)]
        if self.crop != WHOLE:
            parts.append(f"CROP={as_text(self.crop)}")
        return " ".join(parts if self.fit == "squeeze" else [*parts, f"FIT={self.fit}"])

    @classmethod
    def of(cls, settings) -> Framing:
        """The framing by SIZE, CROP and FIT of a script's settings. Raises ValueError if CROP is still auto."""
        return cls(settings.size, crop_box(settings.crop), settings.fit)

    @classmethod
    def from_plain(cls, values: dict) -> Framing:
        """The framing from JSON types. Raises ValueError on a size, crop or fit that the settings would not take."""
        if values["fit"] not in get_args(Fit):
            raise ValueError(f"expected one of {', '.join(get_args(Fit))}, found {values['fit']!r}")
        return cls(height_and_width(values["size"]), crop_box(values["crop"]), values["fit"])

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The used pixels (top, left, bottom, right) of a photograph of that height and width; at least one pixel."""
        top, left, bottom, right = (
            share * side for share, side in zip(self.crop, (height, width, height, width), strict=True)
        )
        if self.fit == "cover":
            proportion = self.size[0] / self.size[1]
            too_high = max(bottom - top - (right - left) * proportion, 0) / 2
            too_wide = max(right - left - (bottom - top) / proportion, 0) / 2
            top, left, bottom, right = top + too_high, left + too_wide, bottom - too_high, right - too_wide
        top, left = min(round(top), height - 1), min(round(left), width - 1)
        return top, left, max(round(bottom), top + 1), max(round(right), left + 1)

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) to which a box of that size is scaled: `size`; with FIT=pad one side may be less."""
        if self.fit != "pad":
            return self.size
        scale = min(self.size[0] / height, self.size[1] / width)
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def least(self, height: int, width: int) -> tuple[int, int]:
        """The least (height, width) to which a decoder may scale a photograph of that size, before the crop.

        Twice the size that is needed: decoders scale in steps, and their result is aliased (up to 3 grey levels off).
        """
        top, left, bottom, right = self.box(height, width)
        rows, columns = self.scaled(bottom - top, right - left)
        return (
            math.ceil(SPARE * rows * height / (bottom - top)),
            math.ceil(SPARE * columns * width / (right - left)),
        )
