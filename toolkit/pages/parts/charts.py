"""Line and bar charts as SVG that a page embeds: in the page's colours, of any width."""

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 280, 58, 14, 12, 46  # units of the viewBox; four margins
COLOURS, DASHES = 6, 5  # in static/style.css
MAX_DOTS = 40  # of a curve: more of them overlap

Points = Sequence[tuple[float, float]]


def chart(curves: Mapping[str, Points], title: str, x_label: str) -> Markup:
    """A figure with the curves {name: [(x, y), ...]}, axes, title and legend. NaN and infinite points are left out."""
    curves = {name: [point for point in points if all(map(math.isfinite, point))] for name, points in curves.items()}
    points = [point for curve in curves.values() for point in curve] or [(0.0, 0.0)]
    xs, ys = zip(*points, strict=True)
    x_ticks = epoch_ticks(xs) if all(float(x).is_integer() for x in xs) else ticks(min(xs), max(xs))
    y_ticks = ticks(min(ys), max(ys))
    to_svg, marks = _axes(x_ticks, y_ticks, x_label)
    for number, curve in enumerate(curves.values()):
        marks.append(_curve([to_svg(point) for point in curve], style(number)))
    legend = "".join(
        f'<li><svg viewBox="0 0 28 10" aria-hidden="true"><path class="{style(number)}" d="M1 5H27"/></svg>'
        f"{escape(name)}</li>"
        for number, name in enumerate(curves)
    )
    return _figure(marks, title, x_label, f'<ul class="key">{legend}</ul>')


def bars(counts: Mapping[int, int], title: str, x_label: str) -> Markup:
    """A figure with a bar for each whole number. It needs one count at least."""
    x_ticks, y_ticks = epoch_ticks(list(counts)), epoch_ticks([0, max(counts.values())])
    to_svg, marks = _axes(x_ticks, y_ticks, x_label, margin=0.5)  # half a bar beside the first and the last tick
    for x, count in counts.items():
        (left, top), (right, bottom) = to_svg((x - 0.45, count)), to_svg((x + 0.45, 0))
        box = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        marks.append(f'<rect class="bar" {box}><title>{escape(x_label)} {x}: {count}</title></rect>')
    return _figure(marks, title, x_label)


def _axes(
    x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, margin: float = 0
) -> tuple[Callable, list[str]]:
    """A function from points to coordinates of the drawing, and the SVG of grid, ticks and label.

    `margin`: what is left beside the first and the last tick of x, in the unit of x.
    """
    ranges = (x_ticks[0] - margin, x_ticks[-1] + margin), (y_ticks[0], y_ticks[-1])

    def to_svg(point: tuple[float, float]) -> tuple[float, float]:
        x, y = ((value - low) / (high - low) for value, (low, high) in zip(point, ranges, strict=True))
        return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)

    marks = []
    for value in y_ticks:
        _, y = to_svg((x_ticks[0], value))
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for value in x_ticks:
        x, _ = to_svg((value, y_ticks[0]))
        marks.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:.6g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    marks.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    return to_svg, marks


def _figure(marks: Sequence[str], title: str, x_label: str, below: str = "") -> Markup:
    description = escape(f"{title} by {x_label}")
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{description}">{"".join(marks)}</svg>'
    return Markup(f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{drawing}{below}</figure>')


def style(number: int) -> str:
    """CSS classes of a curve: colour and dashes, which differ for the first COLOURS * DASHES curves."""
    return f"curve c{number % COLOURS} d{(number + number // COLOURS) % DASHES}"


def epoch_ticks(values: Sequence[float]) -> list[int]:
    """At most 8 whole numbers at equal distances around whole values: there is no epoch 1.5."""
    first, last = int(min(values)), int(max(values))
    step = max(math.ceil((last - first) / 6), 1)
    return list(range(first, max(last, first + 1) + step, step))


def ticks(low: float, high: float) -> list[float]:
    """Round numbers at equal distances around a range."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a rounding error is no range
        low = high
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (factor * step) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _curve(points: list[tuple[float, float]], style: str) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""
    dots = "".join(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points)
    return f'<path class="{style}" d="{path}"/>' + (dots if len(points) <= MAX_DOTS else "")
