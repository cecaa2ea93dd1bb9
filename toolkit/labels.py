"""The one class table: mask, gender and age band <-> class 0..17, and all their names.

class = mask * 6 + gender * 3 + age: the number whose digits are the attributes.
"""

import itertools
import math

ATTRIBUTES = {
    "mask": ("worn", "incorrect", "not_worn"),
    "gender": ("male", "female"),
    "age": ("under_30", "30_to_59", "60_and_over"),
}
PERSON_ATTRIBUTES = tuple(name for name in ATTRIBUTES if name != "mask")  # as a rule the same in all photographs
AGE_FROM_YEARS = (30, 60)  # the first year of the second and of the third age band
BORDER_YEARS = (57, 58, 59)  # look like 60, and in the contest's data are nearly twice as many people as those of 60
CLASSES = math.prod(map(len, ATTRIBUTES.values()))
CLASS_NAMES = tuple(" ".join(values) for values in itertools.product(*ATTRIBUTES.values()))
PROBABILITY_COLUMNS = tuple(f"p{number}" for number in range(CLASSES))  # of CSV files


def to_class(*attributes):
    """Class numbers from attribute numbers in the order of ATTRIBUTES: integers, arrays or tensors of one shape."""
    number = 0
    for value, names in zip(attributes, ATTRIBUTES.values(), strict=True):
        number = number * len(names) + value
    return number


def to_attributes(classes) -> dict:
    """Attribute numbers {"mask", "gender", "age"} from class numbers: the inverse of `to_class`."""
    values = {}
    for attribute, names in reversed(ATTRIBUTES.items()):
        values[attribute] = classes % len(names)
        classes = classes // len(names)
    return {attribute: values[attribute] for attribute in ATTRIBUTES}


def readable(name: str) -> str:
    """A label or the name of a photograph as a page shows it: "incorrect mask"."""
    return name.replace("_", " ")


def age_band(years):
    """Age band numbers 0..2 from ages in years: a number or an array."""
    middle, old = AGE_FROM_YEARS
    return (years >= middle) * 1 + (years >= old) * 1
