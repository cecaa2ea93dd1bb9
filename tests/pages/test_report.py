"""What report.html shows of a run's data."""

import numpy as np
from conftest import from_scratch

from toolkit.pages import report
from toolkit.pages.parts.predictions import READABLE_CLASSES


def test_a_run_counts_its_sides_and_shows_photographs_before_and_after(task):
    found = report.class_counts(task)
    assert found["sides"] == ["training", "validation"]
    numbers = dict(found["rows"])
    assert numbers["all photographs"] == [len(task.train), len(task.validation)]
    assert numbers[f"0 {READABLE_CLASSES[0]}"][0] == int((task.labels[task.train] == 0).sum())
    config = from_scratch(augment="none", size="32x32")
    for before, after in report.augmented_photographs(config, task):  # equal, except for rounding
        assert np.abs(np.asarray(before, int) - np.asarray(after, int)).max() <= 2
