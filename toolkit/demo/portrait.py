"""A portrait of a made-up person, painted from back to front."""

import numpy as np
from PIL import Image, ImageDraw

from toolkit.demo.canvas import HEIGHT, INK, WHITE, WIDTH, Canvas, line, mirrored, mix, outline, oval, shade, smooth

PHOTOGRAPHS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")


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
    """Effects of light, blood and age on the skin: all broad and soft, so that they remain after down-scaling."""
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


def make_films(rng):
    """Twelve pairs of pictures, (sensor noise with light from one side, skin blotches): slow to make, so shared."""
    films = []
    for _ in range(12):
        grain = rng.normal(128, 12, (HEIGHT, WIDTH, 3)) + rng.normal(0, 70) * np.linspace(-1, 1, WIDTH)[:, None]
        blotches = rng.normal(0, 22, (HEIGHT // 4, WIDTH // 4, 1)) * (0.6, 1, 1) + (116, 108, 110)
        films.append([Image.fromarray(field.clip(0, 255).astype(np.uint8)) for field in (grain, blotches)])
    return films
