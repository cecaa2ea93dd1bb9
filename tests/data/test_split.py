"""The split by person: what both sides hold, the folds of cross-validation, and border ages."""

import hashlib

import numpy as np
import pandas as pd
import pytest

import dataset
from toolkit.data.split import Split, describe, held_out_people, missing_groups, split_by_person, without_border_ages
from toolkit.labels import ATTRIBUTES
from toolkit.system.console import InputError


def sides_of(faces: pd.DataFrame, ratio=0.2, folds=0, fold=0, seed=0) -> Split:
    return split_by_person(faces, held_out_people(faces, ratio, folds, fold, seed))


def people(count: int, seed: int = 0, photographs: int = 7) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    person = np.repeat([f"{number:06}" for number in range(count)], photographs)
    gender, years = (
        np.repeat(rng.integers(0, 2, count), photographs),
        np.repeat(rng.integers(18, 61, count), photographs),
    )
    age = (years >= 30) * 1 + (years >= 60)
    mask = np.resize([0, 0, 0, 0, 0, 1, 2], count * photographs)
    return pd.DataFrame(
        {"person": person, "folder": person, "mask": mask, "gender": gender, "age": age, "years": years}
    )


@pytest.mark.parametrize("ratio", [0.1, 0.2, 1 / 3, 0.5])
def test_a_split_holds_out_whole_people_and_keeps_the_shares_of_every_group(ratio):
    faces = people(301)
    sides = sides_of(faces, ratio, seed=3)
    assert sorted([*sides.train, *sides.validation]) == list(range(len(faces)))
    train, validation = (set(faces["person"].iloc[rows]) for rows in (sides.train, sides.validation))
    assert not train & validation and -0.5 <= len(validation) - 301 * ratio <= 1.5  # one more of a rare group
    everybody = faces.drop_duplicates("person")
    for _, group in everybody.groupby(["gender", "age"]):
        assert abs(group["person"].isin(validation).sum() - ratio * len(group)) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_of_every_group_of_two_somebody_is_held_out_and_validation_says_whom_it_lacks(seed):
    """With 30 people and the contest's shares of ages, 1.2 of the 6 groups were missing in validation on average."""
    rng, faces = np.random.default_rng(seed), people(30, seed)
    years = np.repeat(rng.choice([20, 45, 60], 30, p=[0.474, 0.455, 0.071]), 7)
    faces = faces.assign(years=years, age=(years >= 30) * 1 + (years >= 60))
    sides = sides_of(faces, 0.2, seed=seed)
    groups = faces.drop_duplicates("person").groupby(["gender", "age"])["person"]
    validation = set(faces["person"].iloc[sides.validation])
    lacks = [group for group, names in groups if not set(names) & validation]
    assert all((len(groups.get_group(group)) == 1) == (group in lacks) for group, _ in groups)
    for fold in range(3):  # and folds have each group as often as they can
        held_out = held_out_people(faces, 0.2, 3, fold, seed)
        assert all(len(set(names) & held_out) >= len(names) // 3 for _, names in groups)
    lines = missing_groups(dataset.labels(faces), [sides])
    assert len(lines) == bool(lacks) and all("validation has nobody who is" in line for line in lines)
    assert all(f"{ATTRIBUTES['gender'][gender]} {ATTRIBUTES['age'][age]}" in lines[0] for gender, age in lacks)


def test_validation_of_folds_says_whom_each_lacks_and_none_is_missing_where_everybody_trains():
    faces = people(12)
    faces["age"], faces["gender"] = np.repeat([0, 2], [77, 7]), 0
    splits = [sides_of(faces, folds=2, fold=fold) for fold in (0, 1)] + [split_by_person(faces, None)]
    (line,) = missing_groups(dataset.labels(faces), splits)
    assert line == "note: validation of fold 0 has nobody who is male 60_and_over"


def test_groups_of_enough_people_are_split_as_they_ever_were():
    """The held-out people of 301, by hash: if this split changed, no run could continue."""
    held_out = held_out_people(people(301), 0.2, 0, 0, seed=3)
    assert len(held_out) == 60
    assert hashlib.sha256(" ".join(sorted(held_out)).encode()).hexdigest()[:8] == "477b1799"


@pytest.mark.parametrize("folds", [2, 3, 5, 7])
def test_folds_hold_out_everybody_once(folds):
    faces = people(23)
    held_out = [sides_of(faces, folds=folds, fold=fold).validation for fold in range(folds)]
    assert sorted(np.concatenate(held_out)) == list(range(len(faces)))
    sizes = [len(rows) // 7 for rows in held_out]
    assert max(sizes) - min(sizes) <= 1


def test_who_is_held_out_depends_on_the_seed_and_the_people_alone():
    faces = people(40)
    held_out = held_out_people(faces, 0.2, 0, 0, seed=1)
    assert held_out == held_out_people(faces.sample(frac=1, random_state=0), 0.2, 0, 0, seed=1)
    assert held_out == held_out_people(faces.groupby("person").head(1), 0.2, 0, 0, seed=1)
    assert held_out != held_out_people(faces, 0.2, 0, 0, seed=2)


def test_without_a_ratio_everybody_trains():
    sides = sides_of(people(3), 0)
    assert sides.train.tolist() == list(range(21)) and sides.validation.tolist() == []
    with pytest.raises(InputError, match="found 1 and 0 photographs"):
        sides_of(people(1, photographs=1), 0)


def test_a_side_without_people_is_refused():
    for count, ratio in ((1, 0.5), (2, 0.1), (2, 0.9)):
        with pytest.raises(InputError, match="expected people for training and for validation"):
            sides_of(people(count), ratio)
    with pytest.raises(InputError, match="found 1 and 1 photographs of 2 people"):
        sides_of(people(2, photographs=1), 0.5)


def test_the_counts_of_both_sides_are_shown():
    faces = people(50)
    lines = describe(dataset.labels(faces), faces["person"], [sides_of(faces)])
    notes = missing_groups(dataset.labels(faces), [sides_of(faces)])
    counts = lines[: len(lines) - len(notes)]
    assert counts[-1].split() == ["people", "39", "11"] and lines[len(counts) :] == notes
    assert counts[-2].split() == ["all", "photographs", "273", "77"]


def test_border_ages_are_left_out_of_training_only(drawn):
    table, _ = dataset.read_faces(drawn.train)
    table["years"] = np.where(np.arange(len(table)) % 3, 40.0, 58.0)
    sides = split_by_person(table, held_out_people(table, 0.5, 0, 0, seed=0))
    left = without_border_ages(table, sides)
    assert set(table["years"].iloc[left.train]) == {40.0} and left.validation is sides.validation
    assert len(left.train) == (table["years"].iloc[sides.train] == 40).sum()
