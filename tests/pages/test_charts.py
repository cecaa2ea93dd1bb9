"""Charts."""

import re

from toolkit.pages.parts import charts


def test_ticks_are_round_and_hold_the_range():
    for low, high in [
        (0.0, 1.0),
        (1.31, 2.84),
        (3e-7, 1e-3),
        (5.0, 5.0),
        (0.0, 0.0),
        (0.1828713452365508, 0.18287134523655083),
        (-3.0, 1e6),
    ]:
        found = charts.ticks(low, high)
        assert found[0] <= low and high <= found[-1] and 2 <= len(found) <= 8
        assert all(len(re.sub(r"e.*|[-.]", "", f"{value:.6g}").strip("0")) <= 3 for value in found)
