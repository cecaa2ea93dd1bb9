"""Charts."""

import pathlib
import re

from toolkit.pages.parts import charts


def test_ticks_are_round_and_hold_the_range():
    for low, high in (
        (0.0, 1.0), (1.31, 2.84), (3e-7, 1e-3), (5.0, 5.0), (0.0, 0.0), (0.1828713452365508, 0.18287134523655083),
        (-3.0, 1e6),
    ):  # fmt: skip
        found = charts.ticks(low, high)
        assert found[0] <= low and high <= found[-1] and 2 <= len(found) <= 8
        assert all(len(re.sub(r"e.*|[-.]", "", f"{value:.6g}").strip("0")) <= 3 for value in found)


def test_curves_differ_by_more_than_their_colours():
    curves = {name: [(0.0, 0.0), (1.0, float(number))] for number, name in enumerate("abcde")}
    drawing = str(charts.chart(curves, "Scores", "epoch"))
    used = set(re.findall(r'class="[^"]*\b(d\d)\b', drawing))
    style = (pathlib.Path(charts.__file__).parent.parent / "static" / "style.css").read_text()
    assert len(used) == 5 and all(f".{dash} {{ stroke-dasharray" in style for dash in used - {"d0"})


def test_bars_are_as_high_as_their_counts_and_stand_at_their_numbers():
    drawing = str(charts.bars({18: 4, 19: 0, 60: 8}, "People", "age in years"))
    boxes = [dict(re.findall(r'(\w+)="([-\d.]+)"', bar)) for bar in re.findall(r"<rect[^>]*>", drawing)]
    low, none, high = ([float(box[name]) for name in ("x", "width", "height")] for box in boxes)
    assert high[2] == 2 * low[2] > 0 == none[2] and low[1] == high[1]
    assert round((high[0] - low[0]) / (none[0] - low[0])) == 42 and low[0] >= charts.LEFT
    assert high[0] + high[1] <= charts.WIDTH - charts.RIGHT
    assert "age in years 60: 8" in drawing
