"""Curves as SVG that a page holds in itself, in the page's colours and of any width."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 280, 58, 14, 12, 46  # px of the drawing, which is scaled
COLOURS, DASHES = 6, 3
MOST_DOTS = 40  # of a curve; more of them would run together

Points = Sequence[tuple[float, float]]


def chart(curves: Mapping[str, Points], title: str, x: str) -> Markup:
    """Curves {name: [(x, y), ...]} over each other, and which is which. What is no finite number is left out.

    The `title` stands above them, `x` names the axis below.
    """
    curves = {name: [point for point in points if all(map(math.isfinite, point))] for name, points in curves.items()}
    every = [point for points in curves.values() for point in points] or [(0.0, 0.0)]
    across, up = (ticks(min(values), max(values)) for values in zip(*every, strict=True))
    if all(float(x).is_integer() for x, _ in every):  # there is no epoch 1.5
        first, last = (int(limit(x for x, _ in every)) for limit in (min, max))
        step = max(math.ceil((last - first) / 6), 1)
        across = list(range(first, max(last, first + 1) + step, step))

    def place(point) -> tuple[float, float]:
        right, high = ((v - t[0]) / (t[-1] - t[0]) for v, t in zip(point, (across, up), strict=True))
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - high * (HEIGHT - TOP - BOTTOM)

    marks = []
    for value in up:
        _, height = place((across[0], value))
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for value in across:
        right, _ = place((value, up[0]))
        marks.append(f'<text x="{right:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:.6g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    marks.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>')
    for number, points in enumerate(curves.values()):
        marks.append(_curve([place(point) for point in points], style(number)))
    said = escape(f"{title} by {x}")
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">{"".join(marks)}</svg>'
    keys = "".join(
        f'<li><svg viewBox="0 0 28 10" aria-hidden="true"><path class="{style(number)}" d="M1 5H27"/></svg>'
        f"{escape(name)}</li>"
        for number, name in enumerate(curves)
    )
    return Markup(
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{drawing}<ul class="key">{keys}</ul></figure>'
    )


def style(number: int) -> str:
    """The class of a curve: its colour and its dashes, of which no two of 18 have the same."""
    return f"curve c{number % COLOURS} d{(number + number // COLOURS) % DASHES}"


def ticks(low: float, high: float) -> list[float]:
    """Round numbers at equal distances around a range."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # but for rounding they are one number
        low = high
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(times for times in (1, 2, 2.5, 5, 10) if span / (times * step) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _curve(places: list[tuple[float, float]], style: str) -> str:
    path = "M" + "L".join(f"{right:.1f} {height:.1f}" for right, height in places) if places else ""
    dots = "".join(f'<circle class="{style}" cx="{right:.1f}" cy="{height:.1f}" r="2.5"/>' for right, height in places)
    return f'<path class="{style}" d="{path}"/>' + (dots if len(places) <= MOST_DOTS else "")
