"""Portraits of made-up people, drawn from random numbers.

A person is a handful of random traits; gender and age only shift the odds of each (hair, jaw, beard, greying, folds),
so that a classifier can do well, never perfectly, as on photographs of real people.

Coordinates are in face units: the origin lies between the eyes, x to the right, y down, and 1 is half the width of a
head. Crown at y = -1.35, tip of the nose 0.5, mouth 0.8, chin 1.33. Shapes are given as x, y, x, y, ...
"""

from functools import cache
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

PHOTOGRAPHS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")
SIZE = WIDTH, HEIGHT = 384, 512  # as the real photographs
FACE_BOX = (48, 64, 336, 448)  # pixels; soft shading is added here only, which halves its cost


# ---------------------------------------------------------------- colours and shapes


def colours(text):
    return [tuple(bytes.fromhex(code)) for code in text.split()]


SKINS = colours("fce0cb eec6a8 deac86 be8660 926042 62402e")
HAIRS = colours("1c1818 2e201a 4a3020 704628 966234 c49858")
IRISES = colours("3c2618 604024 5c6e46 4a6c92 30241e")
FABRICS = colours("f0f3f5 a6cde4 2c2e34 c4ccd0 ecc4cc 3a5486 96be96 d6be96 845c8c aa4246")
INK, WHITE = colours("241c1a f6f4f0")


def mix(a, b, share):
    """Colour a with a share of colour b."""
    return tuple([max(0, min(255, int(x + (y - x) * share))) for x, y in zip(a, b, strict=True)])


def shade(colour, factor):
    return mix((0, 0, 0), colour, factor)


@cache
def spline(points, closed):
    """The matrix that makes a smooth line (Catmull-Rom) of a number of points."""
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

    `depth` is how near to the viewer a part lies: the turn of the head moves near parts further.
    `pair` paints a part of the right half of the face, and its mirror image.
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


# ---------------------------------------------------------------- people


def make_person(gender, age, looks=None, *, rng):
    """The traits of one made-up person; amounts run from 0 to 1, lengths are in face units.

    An `age` of 60 stands for 60 and over, as in the real data, and so may look like 80. `looks` are the years that the
    person looks; None draws them.
    """
    if looks is None:  # people look their age band more than their year: a few hundred of them teach nothing finer
        looks = np.interp(age, (18, 29, 30, 59, 60), (18, 27, 38, 54, 68)) + rng.normal(0, 2)
        looks += rng.uniform(0, 12) if age >= 60 else 0
    feminine = rng.normal((-1, 1)[gender], 0.35)

    def aged(begin, end, noise=2.5):
        return float(np.clip((looks + rng.normal(0, noise) - begin) / (end - begin), 0, 1))

    def womanly(base, slope, low=0.0, high=1.0):
        return float(np.clip(base + slope * (feminine + rng.normal(0, 0.4)), low, high))

    def between(shades):
        at = rng.uniform(0, len(shades) - 1)
        return mix(shades[int(at)], shades[int(at) + 1], at % 1)

    def wall():
        colour = mix(rng.integers(70, 250, 3), (206, 204, 198), rng.uniform(0.4, 0.9))
        corners = [shade(colour, rng.uniform(0.75, 1.15)) for _ in range(4)]
        return Image.fromarray(np.array(corners, np.uint8).reshape(2, 2, 3)).resize(SIZE, Image.Resampling.BICUBIC)

    dull = aged(26, 66)
    skin = mix(mix(between(SKINS), rng.integers(90, 240, 3), 0.05), (140, 128, 120), 0.22 * dull)
    hair = shade(between(HAIRS), rng.uniform(0.75, 1.05) * (0.4 + 0.6 * skin[0] / 255))
    white = mix((170, 168, 168), (236, 234, 230), rng.uniform())
    grey = aged(31, 62) * (0.6 if rng.random() < 0.1 else 1)  # some dye their hair
    has_glasses = rng.random() < 0.15 + 0.35 * aged(35, 65)
    beard = float(np.clip(rng.normal(0.1, 0.45) - 0.25 * feminine, 0, 1)) if feminine < -0.2 else 0.0
    return SimpleNamespace(
        # of no meaning
        skin=skin,
        iris=IRISES[rng.integers(len(IRISES))],
        cloth=mix(rng.integers(20, 240, 3), (120, 120, 124), 0.35),
        nose=float(rng.normal(1, 0.1)),
        parting=float(rng.choice((-1, 1)) * rng.uniform(0.05, 0.5)),
        volume=float(rng.uniform(0.08, 0.24)),
        masks=[(int(rng.integers(3)), FABRICS[i]) for i in rng.permutation(len(FABRICS))[:5]],
        walls=(wall(), wall()),
        # of gender
        jaw=womanly(0.75, -0.055, 0.6, 0.88),
        shoulders=womanly(1.85, -0.22, 1.3, 2.4),
        brow=womanly(0.09, -0.04, 0.03, 0.145),
        lips=womanly(0.4, 0.4),
        makeup=womanly(0.1, 0.5),
        hair_end=float(rng.uniform(0.75, 2.3)) if womanly(0.5, 0.5) > 0.5 else 0.0,  # y; 0 is short hair
        bun=womanly(0.5, 0.5) > 0.6 and rng.random() < 0.25,
        earrings=rng.random() < womanly(0.0, 0.4),
        beard=beard,
        moustache=beard > 0.3 and rng.random() < 0.6,
        bald=feminine < -0.5 and rng.random() < 0.02 + 0.25 * aged(35, 70),
        # of age
        hair=mix(hair, white, grey),
        brow_hair=mix(shade(hair, 0.8), white, 0.7 * grey),
        grey=grey,
        eye=1.06 - 0.18 * aged(25, 70) + 0.04 * feminine,
        fringe=1 - aged(25, 70) if rng.random() < 0.35 else 0.0,
        receding=aged(28, 70, 6) * float(np.clip(0.6 - 0.4 * feminine, 0.25, 1)),
        glasses=has_glasses * (1 + int(rng.random() < 0.4)),  # 1 is thin, 2 is thick
        dull=dull,
        forehead=aged(27, 62),
        folds=aged(25, 60),
        bags=aged(25, 58),
        crow=aged(28, 62),
        blotches=aged(25, 66),
        sagging=aged(40, 75),
    )


# ---------------------------------------------------------------- a portrait, from back to front


def head_outline(person):
    jaw, sag = person.jaw, 0.07 * person.sagging
    upper = (0.02, -1.35, 0.55, -1.24, 0.91, -0.8, 0.99, -0.15, 0.94, 0.4)
    return mirrored(*upper, jaw + sag, 0.9 + sag, 0.54 * jaw, 1.23, 0.02, 1.34)


def beard_outline(person):
    cheek = (0.02, 0.58, 0.32, 0.62, 0.5, 0.76, 0.8, 0.55, 0.95, 0.15, 0.95, 0.5)
    return mirrored(*cheek, person.jaw + 0.02, 0.95, 0.56 * person.jaw, 1.27, 0.02, 1.39)


def draw_body(canvas, person):
    skin, wide, neck = person.skin, person.shoulders, 0.27 * person.shoulders + 0.4 * (person.jaw - 0.75)
    if person.hair_end and not person.bald:
        side, end = 1 + 0.9 * person.volume, person.hair_end
        lower = (side + 0.06, 0.4, side + 0.08, max(0.6, end - 0.3), side - 0.2, end, 0.4, end + 0.05)
        canvas.fill(mirrored(0.02, -1.45, 0.75, -1.25, side, -0.5, *lower), shade(person.hair, 0.72), -0.4)
    if person.bun and not person.bald:
        canvas.fill(oval(0, -1.5 - person.volume, 0.42, 0.32), shade(person.hair, 0.85), -0.4)
    canvas.fill(np.array([(-neck, 0.6), (neck, 0.6), (neck, 1.9), (-neck, 1.9)]), shade(skin, 0.9))
    canvas.fill(oval(0, 1.2, neck, 0.36), shade(skin, 0.72))
    shoulder = (0.95, 1.9, wide, 2.2, wide + 0.2, 3.6, 0.02, 3.8)
    canvas.fill(mirrored(0.02, 2.25, 0.3, 2.1, neck - 0.02, 1.68, *shoulder), person.cloth)
    canvas.fill(mirrored(0.02, 1.55, neck - 0.03, 1.62, 0.3, 2.08, 0.02, 2.22), shade(skin, 0.88))
    canvas.line(line(neck, 1.66, 0.31, 2.1, 0, 2.25), shade(person.cloth, 0.75), 0.06, pair=True)


def draw_head(canvas, person):
    canvas.fill(oval(1.0, 0.08, 0.14, 0.28), shade(person.skin, 0.92), -0.2, pair=True)
    canvas.line(line(1.01, -0.08, 1.08, 0.06, 1.01, 0.22), shade(person.skin, 0.75), 0.03, -0.2, pair=True)
    if person.earrings:
        canvas.fill(oval(1.03, 0.42, 0.07, 0.1), (232, 200, 96), -0.2, pair=True)
    canvas.fill(head_outline(person), person.skin)


def draw_shading(canvas, person, blotches):
    """What light, blood and age do to a skin; all of it broad and soft, to outlive down-scaling."""
    contrast = 0.35 + 0.65 * max(person.skin) / 255

    def change(amount):
        return [contrast * amount * channel for channel in (0.8, 1, 1)]

    head = Image.new("L", canvas.soft_image.size)
    for pixels in canvas.place(head_outline(person), 0, zoom=0.25):
        ImageDraw.Draw(head).polygon(pixels, fill=int(255 * person.blotches))
    canvas.soft_image.paste(blotches, mask=head)
    canvas.soft(outline(1, -0.9, 0.8, -0.2, 0.78, 0.5, 0.5, 1.3, 1.1, 1.3, 1.2, 0), change(-18), depth=0, pair=True)
    youth = 1 - person.dull
    canvas.soft(oval(0.52, 0.5, 0.25, 0.19), (16 * youth + 4 * person.lips, -6 * youth, -2 * youth), pair=True)
    if youth > 0.5:  # a young skin shines
        canvas.soft(oval(0, -0.6, 0.45, 0.2), change(16 * youth))
    canvas.soft(oval(0.42, 0, 0.3, 0.17), change(-12 - 24 * person.bags), pair=True)
    canvas.soft(line(0.18, 0.14, 0.4, 0.27, 0.66, 0.16), change(-75 * person.bags), 0.09, pair=True)
    for y in (-0.16, 0.02, 0.2):
        canvas.soft(np.array([(0.68, 0.02), (0.92, y)]), change(-65 * person.crow), 0.05, pair=True)
    canvas.soft(line(0.2, 0.4, 0.38, 0.6, 0.44, 0.86), change(-75 * person.folds), 0.09, pair=True)
    canvas.soft(line(0.34, 0.95, 0.46, 1.15), change(-50 * person.sagging), 0.08, pair=True)
    for y in (-0.84, -0.66, -0.48):
        canvas.soft(line(-0.5, y, -0.2, y - 0.04, 0.2, y - 0.02, 0.5, y + 0.01), change(-65 * person.forehead), 0.06)
    canvas.soft(outline(0.06, -0.2, 0.16, 0.3, 0.1, 0.44, 0.22, 0.44, 0.2, 0.2), change(-22), depth=1.2)
    canvas.soft(oval(0, 0.26, 0.05, 0.24), change(14), depth=1.3)
    canvas.soft(oval(0, 0.55, 0.2, 0.05), change(-28))
    canvas.soft(oval(0, 1.0, 0.2, 0.05), change(-18))
    if person.beard > 0.05:
        share = 0.45 * min(1, 2 * person.beard)
        stubble = [share * (h - s) for h, s in zip(person.hair, person.skin, strict=True)]
        canvas.soft(beard_outline(person), stubble, depth=0.4)
        canvas.soft(oval(0, 0.8, 0.26, 0.1), (0, 0, 0), depth=0.6)
    canvas.melt()


def draw_eyes(canvas, person, rng):
    gaze, wide = rng.normal(0, 0.02), 0.21 * person.eye
    opening = person.eye * float(np.clip(rng.normal(0.09, 0.012), 0.055, 0.12))
    near, far, corner = 0.42 - 0.5 * wide, 0.42 + 0.4 * wide, (0.42 + wide, 0)
    lid = line(0.42 - wide, 0.03, near, -0.75 * opening, far, -0.85 * opening, *corner)
    lower = line(*corner, far, 0.85 * opening, near, 0.8 * opening, 0.42 - wide, 0.03)
    crease = line(*corner, far, -1.9 * opening, near, -1.8 * opening, 0.42 - wide, 0.03)
    canvas.fill(np.concatenate([lid, lower]), WHITE, 1, pair=True)
    for x in (gaze - 0.42, gaze + 0.42):
        canvas.fill(oval(x, -0.01, 0.1, 0.09), person.iris, 1)
        canvas.fill(oval(x, -0.01, 0.048, 0.045), INK, 1)
        canvas.fill(oval(x + 0.03, -0.035, 0.018, 0.018), WHITE, 1)
    eyelid = mix(shade(person.skin, 0.86), (110, 60, 100), 0.5 * person.makeup)
    canvas.fill(np.concatenate([lid, crease]), eyelid, 1, pair=True)
    canvas.line(lid, INK, 0.025 + 0.035 * person.makeup, 1, pair=True)
    if person.makeup > 0.3:
        canvas.line(np.array([corner, (0.51 + wide, -0.08)]), INK, 0.04, 1, pair=True)
    thick, rise = person.brow, rng.normal(0, 0.015)
    top, bottom = -0.32 - thick + rise, -0.3 + thick / 2 + rise
    arch = outline(0.16, -0.22 - thick / 2, 0.42, top, 0.72, -0.22, 0.42, bottom, 0.17, -0.2 + thick / 2)
    canvas.fill(arch, person.brow_hair, 1, pair=True)


def draw_nose_and_mouth(canvas, person, rng):
    smile, nose = rng.normal(0.3, 0.5), person.nose
    canvas.fill(oval(0.09 * nose, 0.49, 0.05, 0.03), shade(person.skin, 0.5), 1.2, pair=True)
    wing = line(0.14 * nose, 0.34, 0.2 * nose, 0.44, 0.14 * nose, 0.51)
    canvas.line(wing, shade(person.skin, 0.75), 0.03, 1.2, pair=True)
    if person.beard > 0.6:
        canvas.fill(beard_outline(person), shade(person.hair, 0.9), 0.3)
    if person.moustache:
        canvas.fill(mirrored(0.02, 0.58, 0.22, 0.6, 0.4, 0.76, 0.2, 0.7, 0.02, 0.68), person.hair, 1)
    lip = mix(shade(person.skin, 0.78), (190, 50, 64), 0.12 + 0.55 * person.lips)
    full, wide, corner = 0.05 + 0.045 * person.lips, 0.3 + 0.03 * smile, 0.8 - 0.05 * smile
    upper = (-wide, corner, -0.1, 0.79 - full, 0, 0.81 - full, 0.1, 0.79 - full, wide, corner)
    canvas.fill(outline(*upper, 0.14, 0.82 + 1.5 * full, -0.14, 0.82 + 1.5 * full), lip, 1)
    middle = line(-wide, corner, -0.12, 0.81, 0.12, 0.81, wide, corner)
    if smile > 0.6:
        teeth = line(0.8 * wide, corner + 0.01, 0, 0.82 + full, -0.8 * wide, corner + 0.01)
        canvas.fill(np.concatenate([middle, teeth]), WHITE, 1)
    canvas.line(middle, shade(lip, 0.55), 0.022, 1)


# How a mask is worn: its top, its bottom and its half-width.
WEARINGS = {"worn": (0.2, 1.4, 0.9), "nose": (0.62, 1.44, 0.86), "chin": (1.0, 1.52, 0.74), "hanging": (0.3, 1.3, 0.8)}


def draw_mask(canvas, wearing, style, fabric, rng):
    top, bottom, wide = WEARINGS[wearing]
    top, bottom = top + rng.normal(0, 0.03), bottom + rng.normal(0, 0.02)
    tall, middle, edge = bottom - top, (top + bottom) / 2, shade(fabric, 0.78)
    hand = int(rng.choice((-1, 1))) if wearing == "hanging" else 0  # the side of the ear it hangs from
    tilt = np.array([[0.4, 0.7 * hand], [-0.7 * hand, 0.4]]) if hand else np.eye(2)

    def put(points):
        return (points - (0, middle)) @ tilt + (0.8 * hand, middle + 0.1 * abs(hand))

    for side in (hand,) if hand else (-1, 1):
        for height, ear in ((0.2, -0.02), (0.6, 0.3)):
            loop = np.array([(side * (wide - 0.04), top + height * tall), (side * 1.03, ear)])
            canvas.line(loop, (226, 226, 222), 0.03, 0.1)
    lower = (0.66 * wide, bottom - 0.16 * tall, 0.3 * wide, bottom - 0.02, 0.02, bottom)
    upper = (0.02, top, 0.34, top + 0.06 * tall, wide, top + 0.17 * tall, wide - 0.03, top + 0.55 * tall)
    shape = put(mirrored(*upper, *lower))
    canvas.fill(shape, fabric, 0.6)
    canvas.line(shape, edge, 0.025, 0.6)
    if style == 0:  # surgical: pleats
        for share in (0.32, 0.52, 0.72):
            y, reach = top + share * tall, wide * (1.2 - 0.5 * share) - 0.12
            canvas.line(put(line(-reach, y, 0, y + 0.03, reach, y)), edge, 0.025, 0.7)
    elif style == 1:  # moulded: a seam and a fold
        canvas.line(put(line(0, top, 0, bottom)), edge, 0.025, 0.9)
        canvas.line(put(line(0.05 - wide, middle, 0, middle - 0.2 * tall, wide - 0.05, middle)), edge, 0.02, 0.8)
    else:  # cloth: dots
        ink = mix(fabric, WHITE, 0.6) if sum(fabric) < 480 else shade(fabric, 0.65)
        for x, share in ((x, share) for share in (0.28, 0.52, 0.76) for x in (-0.6, -0.3, 0, 0.3, 0.6)):
            if abs(x) < 0.9 - 0.6 * share:
                canvas.fill(put(oval(x * wide * 1.1, top + share * tall, 0.05, 0.05)), ink, 0.7)


def draw_hair(canvas, person):
    """The hair in front, between an outer and an inner edge that both run from left to right."""
    if person.bald:
        canvas.fill(outline(1.04, 0.1, 1.07, -0.4, 0.98, -0.6, 0.93, -0.2), person.hair, pair=True)
        return
    full, part = person.volume, person.parting
    line_y = -0.74 - 0.4 * person.receding + 0.32 * person.fringe
    temple_y = line_y + 0.14 - 0.12 * person.receding
    low, side, end = (min(person.hair_end, 1.1), 1.03 + 0.5 * full, 0.14) if person.hair_end else (0.04, 1.02, 0.03)
    tip = side - 0.05 if person.hair_end else 1.0
    right_out = np.array([(0.82, -1.08 - 0.6 * full), (side, -0.4), (tip, low)])
    right_in = np.array([(0.6, temple_y), (0.93, -0.35), (tip - end, low - 0.5 * end)])
    outer = np.concatenate([right_out[::-1] * (-1, 1), [(0.3 * part, -1.36 - full)], right_out])
    inner = np.concatenate([right_in[::-1] * (-1, 1), [(part, line_y)], right_in])
    canvas.fill(np.concatenate([smooth(outer), smooth(inner[::-1])]), person.hair, 0.1)
    dark, bright = shade(person.hair, 0.84), mix(person.hair, WHITE, 0.08 + 0.15 * person.grey)
    for i, share in enumerate((0.1, 0.25, 0.4, 0.55, 0.7, 0.85)):  # strands, combed away from the parting
        strand = outer + share * (inner - outer)
        strand[3] = 0.8 * part, -1.3 - 0.5 * full
        canvas.line(smooth(strand), (dark, bright)[i % 2], 0.025, 0.1)


def draw_glasses(canvas, person):
    frame = np.add(mirrored(0.02, -0.19, 0.2, -0.18, 0.29, -0.02, 0.22, 0.2, 0.02, 0.24), (0.42, 0))
    canvas.line(np.concatenate([frame, frame[:1]]), INK, 0.03 * person.glasses, 1.05, pair=True)
    canvas.line(line(0.7, -0.05, 1.0, -0.08), INK, 0.03, 0.5, pair=True)
    canvas.line(line(-0.14, -0.04, 0, -0.09, 0.14, -0.04), INK, 0.03 * person.glasses, 1.1)


def portrait(person, photo, rng, films):
    """One photograph, an RGB image of SIZE; `photo` is an index into PHOTOGRAPHS."""
    grain, blotches = films[rng.integers(len(films))]
    canvas = Canvas(person.walls[int(rng.random() < 0.3)], rng)
    draw_body(canvas, person)
    draw_head(canvas, person)
    draw_shading(canvas, person, blotches)
    draw_eyes(canvas, person, rng)
    draw_nose_and_mouth(canvas, person, rng)
    if PHOTOGRAPHS[photo] == "incorrect_mask":
        wearing = str(rng.choice(("nose", "chin", "hanging"), p=(0.5, 0.35, 0.15)))
        draw_mask(canvas, wearing, *person.masks[rng.integers(5)], rng)
    elif PHOTOGRAPHS[photo] != "normal":
        draw_mask(canvas, "worn", *person.masks[photo], rng)
    draw_hair(canvas, person)
    if person.glasses:
        draw_glasses(canvas, person)
    gains = rng.normal(1.06, 0.08) + rng.normal(0, 0.03) * np.array([1, 0, -1])  # exposure; warm or cool light
    tones = np.outer(gains, np.arange(256)).clip(0, 255).astype(int).ravel().tolist()
    image = canvas.image.point(tones)
    for step in ((1, 0), (0, 1)):  # smooths the edges at a third of the cost of a blur filter
        moved = image.copy()
        moved.paste(image, step)
        image = Image.blend(image, moved, rng.uniform(0.35, 0.5))
    return Image.blend(image, grain, 0.12)


def make_films(rng, count=12):
    """Pairs of sensor noise with light from one side, and of skin blotches: costly, hence shared by all."""
    films = []
    for _ in range(count):
        grain = rng.normal(128, 12, (HEIGHT, WIDTH, 3)) + rng.normal(0, 70) * np.linspace(-1, 1, WIDTH)[:, None]
        blotches = rng.normal(0, 22, (HEIGHT // 4, WIDTH // 4, 1)) * (0.6, 1, 1) + (116, 108, 110)
        films.append([Image.fromarray(field.clip(0, 255).astype(np.uint8)) for field in (grain, blotches)])
    return films
