"""The traits of a made-up person, from random numbers.

Gender and age only change the probability of each trait (hair, jaw, beard, grey hair, folds), so that a classifier can
be good but never perfect, as on photographs of real people.
"""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from toolkit.demo.canvas import SIZE, colours, mix, shade

SKINS = colours("fce0cb eec6a8 deac86 be8660 926042 62402e")
HAIRS = colours("1c1818 2e201a 4a3020 704628 966234 c49858")
IRISES = colours("3c2618 604024 5c6e46 4a6c92 30241e")
FABRICS = colours("f0f3f5 a6cde4 2c2e34 c4ccd0 ecc4cc 3a5486 96be96 d6be96 845c8c aa4246")


def between(shades, rng):
    """A colour between two neighbours of a scale."""
    at = rng.uniform(0, len(shades) - 1)
    return mix(shades[int(at)], shades[int(at) + 1], at % 1)


def wall(rng):
    """A background that shades from corner to corner."""
    colour = mix(rng.integers(70, 250, 3), (206, 204, 198), rng.uniform(0.4, 0.9))
    corners = [shade(colour, rng.uniform(0.75, 1.15)) for _ in range(4)]
    return Image.fromarray(np.array(corners, np.uint8).reshape(2, 2, 3)).resize(SIZE, Image.Resampling.BICUBIC)


def drawn_looks(age, rng):
    """How old a person of this age looks, in years: by age band more than by year, as hundreds teach nothing finer."""
    older = np.interp(age, (18, 29, 30, 59, 60), (18, 27, 38, 54, 68)) + rng.normal(0, 2)
    return older + (rng.uniform(0, 12) if age >= 60 else 0)


def make_person(gender, age, looks=None, *, rng):
    """The traits of one made-up person; amounts run from 0 to 1, lengths are in face units.

    An `age` of 60 stands for 60 and over, as in the real data, and so may look like 80. `looks`: how old the person
    looks, in years; None draws it from the age.
    """
    looks = drawn_looks(age, rng) if looks is None else looks
    feminine = rng.normal((-1, 1)[gender], 0.35)

    def aged(begin, end, noise=2.5):
        return float(np.clip((looks + rng.normal(0, noise) - begin) / (end - begin), 0, 1))

    def womanly(base, slope, low=0.0, high=1.0):
        return float(np.clip(base + slope * (feminine + rng.normal(0, 0.4)), low, high))

    dull = aged(26, 66)
    skin = mix(mix(between(SKINS, rng), rng.integers(90, 240, 3), 0.05), (140, 128, 120), 0.22 * dull)
    hair = shade(between(HAIRS, rng), rng.uniform(0.75, 1.05) * (0.4 + 0.6 * skin[0] / 255))
    white = mix((170, 168, 168), (236, 234, 230), rng.uniform())
    grey = aged(31, 62) * (0.6 if rng.random() < 0.1 else 1)  # some dye their hair
    has_glasses = rng.random() < 0.15 + 0.35 * aged(35, 65)
    beard = float(np.clip(rng.normal(0.1, 0.45) - 0.25 * feminine, 0, 1)) if feminine < -0.2 else 0.0
    return SimpleNamespace(
        # independent of gender and age
        skin=skin,
        iris=IRISES[rng.integers(len(IRISES))],
        cloth=mix(rng.integers(20, 240, 3), (120, 120, 124), 0.35),
        nose=float(rng.normal(1, 0.1)),
        parting=float(rng.choice((-1, 1)) * rng.uniform(0.05, 0.5)),
        volume=float(rng.uniform(0.08, 0.24)),
        masks=[(int(rng.integers(3)), FABRICS[i]) for i in rng.permutation(len(FABRICS))[:5]],
        walls=(wall(rng), wall(rng)),
        # by gender
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
        # by age
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
