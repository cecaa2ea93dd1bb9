"""Colours, shapes and a canvas that paints them in the pose of one head.

Coordinates are in face units: the origin lies between the eyes, x to the right, y down, and 1 is half the width of a
head. Crown at y = -1.35, tip of the nose 0.5, mouth 0.8, chin 1.33. Shapes are given as x, y, x, y, ...
"""

from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = WIDTH, HEIGHT = 384, 512  # pixels, as in the contest's photographs
FACE_BOX = (48, 64, 336, 448)  # pixels; soft shading is added here only, which halves its cost


def colours(text):
    return [tuple(bytes.fromhex(code)) for code in text.split()]


INK, WHITE = colours("241c1a f6f4f0")


def mix(a, b, share):
    """Colour a with a share of colour b."""
    return tuple([max(0, min(255, int(x + (y - x) * share))) for x, y in zip(a, b, strict=True)])


def shade(colour, factor):
    return mix((0, 0, 0), colour, factor)


@cache
def spline(points, closed):
    """The matrix that turns points into a smooth line (Catmull-Rom): float64, shape (points on the line, points)."""
    t = np.linspace(0, 1, 6)[:-1, None]
    weights = np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]) / 2
    around = np.arange(points if closed else points - 1)[:, None] + (-1, 0, 1, 2)
    around = around % points if closed else around.clip(0, points - 1)
    matrix = np.einsum("tk,nkp->ntp", weights, np.eye(points)[around]).reshape(-1, points)
    return matrix if closed else np.vstack([matrix, np.eye(points)[-1:]])


def smooth(points, closed=False):
    return spline(len(points), closed) @ points


def line(*xy):
    return smooth(np.reshape(xy, (-1, 2)))


def outline(*xy):
    return smooth(np.reshape(xy, (-1, 2)), closed=True)


def mirrored(*xy):
    """A symmetric outline from its right half, given from top to bottom."""
    right = np.reshape(xy, (-1, 2))
    return smooth(np.concatenate([right, right[::-1] * (-1, 1)]), closed=True)


CIRCLE = np.exp(2j * np.pi * np.arange(20) / 20).view(float).reshape(-1, 2)


def oval(x, y, half_width, half_height):
    return CIRCLE * (half_width, half_height) + (x, y)


class Canvas:
    """One picture in a random pose: paints shapes given in face units.

    `depth`: how near a part is to the viewer; when the head turns, near parts move more. `pair`: paint the part and
    also its mirror image.
    """

    def __init__(self, background, rng):
        self.image = background.copy()
        self.draw = ImageDraw.Draw(self.image)
        self.scale = rng.normal(97, 3)
        self.centre = rng.normal((WIDTH / 2, 238), 8)
        self.yaw = float(np.clip(rng.normal(0, 0.09), -0.2, 0.2))
        cosine, sine = np.cos(angle := rng.normal(0, 0.045)), np.sin(angle)
        self.turn = self.scale * np.array([[cosine, sine], [-sine, cosine]])
        # Soft shading gathers here at a quarter of the size; 128 changes nothing.
        self.soft_image = Image.new("RGB", (WIDTH // 4, HEIGHT // 4), (128, 128, 128))
        self.soft_draw = ImageDraw.Draw(self.soft_image)

    def place(self, points, depth, pair=False, zoom=1.0):
        """The pixels of a shape and, if a pair, of its mirror image."""
        centre = self.centre + self.yaw * depth * self.turn[0]
        for shape in (points, points * (-1, 1)) if pair else (points,):
            yield ((shape @ self.turn + centre) * zoom).ravel().tolist()

    def fill(self, points, colour, depth=0.0, pair=False):
        for pixels in self.place(points, depth, pair):
            self.draw.polygon(pixels, fill=colour)

    def line(self, points, colour, width, depth=0.0, pair=False):
        for pixels in self.place(points, depth, pair):
            self.draw.line(pixels, fill=colour, width=max(1, round(width * self.scale)), joint="curve")

    def soft(self, points, change, width=None, depth=1.0, pair=False):
        """Change the colour of an area, or along a line of `width`, by three signed numbers."""
        colour = mix((128, 128, 128), [128 + amount for amount in change], 1)
        for pixels in self.place(points, depth, pair, 0.25):
            if width is None:
                self.soft_draw.polygon(pixels, fill=colour)
            else:
                self.soft_draw.line(pixels, fill=colour, width=max(1, round(width * self.scale / 4)))

    def melt(self):
        """Blur the soft shading and add it to the picture."""
        left, top, right, bottom = FACE_BOX
        soft = self.soft_image.crop([edge // 4 for edge in FACE_BOX]).filter(ImageFilter.GaussianBlur(1.1))
        soft = soft.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
        self.image.paste(ImageChops.add(self.image.crop(FACE_BOX), soft, 1, -128), (left, top))
