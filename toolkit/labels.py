"""The one class table: mask, gender and age band <-> class 0..17, and all their names.

class = mask * 6 + gender * 3 + age
"""

ATTRIBUTES = {
    "mask": ("worn", "incorrect", "not_worn"),
    "gender": ("male", "female"),
    "age": ("under_30", "30_to_59", "60_and_over"),
}
AGE_FROM_YEARS = (30, 60)  # the first year of the second and of the third age band
BORDER_YEARS = (57, 58, 59)  # look like 60, and are nearly twice as many as those of 60 in the contest's data
CLASSES = 18
CLASS_NAMES = tuple(
    f"{mask} {gender} {age}"
    for mask in ATTRIBUTES["mask"]
    for gender in ATTRIBUTES["gender"]
    for age in ATTRIBUTES["age"]
)
PROBABILITY_COLUMNS = tuple(f"p{number}" for number in range(CLASSES))


def encode(mask, gender, age):
    """Class number(s) from attribute numbers: integers, or integer arrays or tensors of one shape."""
    return mask * 6 + gender * 3 + age


def decode(classes) -> dict:
    """Attribute numbers {"mask", "gender", "age"} from class number(s): the inverse of `encode`."""
    return {"mask": classes // 6, "gender": classes // 3 % 2, "age": classes % 3}


def age_band(years):
    """Age band number(s) 0..2 from an age in years: a number or an array."""
    middle, old = AGE_FROM_YEARS
    return (years >= middle) * 1 + (years >= old) * 1
