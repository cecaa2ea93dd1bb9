"""Scores by group, against Fairlearn's."""

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score, f1_score

from toolkit.scoring import groups


@pytest.fixture(scope="module")
def people():
    """For 120 people: five photographs each, a place, and predictions that are wrong more often in one place."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(120), 5)
    place = np.array(["north", "south", "west"])[person % 3]
    true = rng.integers(0, 18, 600)
    wrong = rng.random(600) < np.where(place == "west", 0.5, 0.1)
    return person, place, true, np.where(wrong, rng.integers(0, 18, 600), true)


def test_scores_of_groups_and_their_gap_are_those_of_fairlearn(people):
    person, place, true, predicted = people
    found = groups.by_group(true, predicted, person, place)

    def macro_f1(true, predicted):
        return f1_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)

    frame = MetricFrame(
        metrics={"accuracy": accuracy_score, "macro_f1": macro_f1}, y_true=true, y_pred=predicted,
        sensitive_features=place,
    )  # fmt: skip
    for group in found["groups"]:
        assert (group["people"], group["photographs"]) == (40, 200)
        for score in ("accuracy", "macro_f1"):
            assert group[score] == pytest.approx(frame.by_group.loc[group["group"], score])
            low, high = group[f"{score}_interval"]
            assert low < group[score] < high
    gap = found["gap"]
    assert gap["difference"] == pytest.approx(frame.difference(method="between_groups")["accuracy"])
    assert gap["lowest"] == "west" == frame.by_group["accuracy"].idxmin()
    assert gap["highest"] == frame.by_group["accuracy"].idxmax()
    assert 0.1 < gap["interval"][0] < gap["difference"] < gap["interval"][1]


def test_the_interval_of_a_gap_is_that_of_pairs_where_people_are_in_both_groups(people):
    """Both groups have the same mistakes, so no sample has a gap. Groups of few people are not compared."""
    person, _, true, predicted = people
    twice = np.tile(true, 2), np.tile(predicted, 2), np.tile(person, 2)
    camera = np.repeat(["a", "b"], len(true))
    gap = groups.by_group(*twice, camera)["gap"]
    assert gap["interval"] == (0, 0) and {gap["lowest"], gap["highest"]} == {"a", "b"}
    camera[person.tolist().index(9) :] = "b"
    found = groups.by_group(*twice, camera)
    assert [group["people"] for group in found["groups"]] == [9, 120] and found["gap"] is None
    low, high = found["groups"][0]["accuracy_interval"]
    assert high - low > 0.2 and found["groups"][0]["macro_f1_interval"] is None


def test_groups_that_are_equally_often_right_are_compared_with_each_other(people):
    person, _, true, _ = people
    half = np.repeat(["a", "b"], [len(true) // 2, len(true) - len(true) // 2])
    gap = groups.by_group(true, true, person, half)["gap"]
    assert gap["difference"] == 0 and {gap["lowest"], gap["highest"]} == {"a", "b"}


def test_age_bands_come_in_their_order(people):
    person, _, true, predicted = people
    found = groups.by_columns(true, predicted, person, {})["age"]["groups"]
    assert [group["group"] for group in found] == ["under 30", "30 to 59", "60 and over"]


def test_without_people_the_interval_of_a_gap_is_that_of_groups_that_have_nobody_in_common():
    """Var(difference) = sum over both groups of accuracy * (1 - accuracy) / photographs."""
    true = np.zeros(800, int)
    predicted = np.where(np.arange(800) % 400 < np.repeat([320, 280], 400), 0, 1)
    low, high = groups.by_group(true, predicted, None, np.repeat(["a", "b"], 400))["gap"]["interval"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 400 + 0.7 * 0.3 / 400), rel=0.1)


def test_a_gap_to_a_group_that_is_all_wrong_is_as_uncertain_as_that_group():
    """Say, 29 photographs of 4 people: without one right answer, bootstrap samples have no spread."""
    predicted = np.r_[np.zeros(140, int), np.ones(260, int), np.ones(29, int)]
    found = groups.by_group(np.zeros(429, int), predicted, None, ["some"] * 400 + ["none"] * 29)
    low, high = found["gap"]["interval"]
    of_none = found["groups"][0]["accuracy_interval"]  # Wilson's
    assert of_none[1] > 0.1 and high - low > of_none[1] - of_none[0]


def test_the_widest_of_many_gaps_by_chance_is_mostly_said_to_be_none():
    """Groups of few people, all equally often right: the interval of the widest gap excludes 0 in few draws."""
    rng, excluded = np.random.default_rng(0), 0
    for _ in range(40):
        person = np.repeat(np.arange(8 * 15), 7)
        right = rng.random(len(person)) < np.repeat(rng.beta(9, 1, 8 * 15), 7)
        gap = groups.by_group(np.zeros(len(person), int), 1 - right, person, (person // 15).astype(str))["gap"]
        excluded += gap["interval"][0] > 0
    assert excluded <= 4
    person, right = np.repeat(np.arange(24), 7), np.tile(np.arange(7) < 7, 24)
    right[12 * 7 :] = np.tile(np.arange(7) < 5, 12)
    gap = groups.by_group(np.zeros(len(person), int), 1 - right, person, (person // 12).astype(str))["gap"]
    assert gap["interval"][1] - gap["interval"][0] > 0.2


def test_columns_that_group_are_taken_and_others_are_not(people):
    person, place, true, predicted = people
    columns = {"place": place, "file": np.arange(600), "site": ["one"] * 600, "camera": ["x", "", " x "] * 200}
    columns["years"] = np.where(person % 4, 25 + person % 20, np.nan)
    found = groups.by_columns(true, predicted, None, columns)
    assert list(found) == ["mask", "gender", "age", "gender x age", "mask x gender x age", "place", "camera", "years"]
    assert [group["group"] for group in found["camera"]["groups"]] == [groups.UNKNOWN, "x"]
    assert [group["group"] for group in found["years"]["groups"]] == ["20 to 29", "30 to 39", "40 to 49", "not known"]
    assert [group["people"] for group in found["place"]["groups"]] == [None] * 3
    assert sum(group["photographs"] for group in found["mask x gender x age"]["groups"]) == 600
    assert groups.widest(found)[0].endswith("; too narrow, as people are not known)")


def test_a_column_named_as_an_attribute_does_not_take_its_place(people):
    person, _, true, predicted = people
    columns = {"age": [20 + who % 50 for who in person], "gender": ["f", "m"] * 300}
    found = groups.by_columns(true, predicted, None, columns)
    without = groups.by_columns(true, predicted, None, {})
    assert {name: found[name] for name in without} == without
    assert [group["group"] for group in found["column gender"]["groups"]] == ["f", "m"]
    names = [group["group"] for group in found["column age"]["groups"]]
    assert names == ["20 to 29", "30 to 39", "40 to 49", "50 to 59", "60 to 69"]
    bands = groups.by_columns(true, predicted, None, {"age": ["young", "old", ""] * 200})["column age"]["groups"]
    assert [group["group"] for group in bands] == [groups.UNKNOWN, "old", "young"]
