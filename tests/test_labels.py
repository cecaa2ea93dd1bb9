import numpy as np
import pytest

from toolkit import labels


def test_every_class_survives_the_round_trip():
    classes = np.arange(18)
    assert (labels.to_class(*labels.to_attributes(classes).values()) == classes).all()


@pytest.mark.parametrize(
    ("mask", "gender", "age", "expected"), [(0, 0, 0, 0), (0, 1, 1, 4), (1, 0, 2, 8), (2, 0, 1, 13), (2, 1, 2, 17)]
)
def test_classes_are_those_of_the_contest(mask, gender, age, expected):
    assert labels.to_class(mask, gender, age) == expected
    attributes = (("worn", "incorrect", "not_worn")[mask], ("male", "female")[gender])
    assert labels.CLASS_NAMES[expected].startswith(" ".join(attributes))


def test_age_bands_begin_at_30_and_at_60():
    assert [labels.age_band(years) for years in (18, 29, 30, 59, 60, 100)] == [0, 0, 1, 1, 2, 2]
    assert labels.age_band(np.array([29, 30, 60])).tolist() == [0, 1, 2]
