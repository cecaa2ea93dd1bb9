"""Findings and suspects, from made-up probabilities: so the true labels are known."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

import dataset
from toolkit.label_errors import evidence, ranking
from toolkit.labels import ATTRIBUTES, age_band, to_class

MASKS = dataset.MASK_OF_PHOTOGRAPH


def people(count: int, seed: int = 0) -> pd.DataFrame:
    """A table as `dataset.read_faces` gives it, all of whose labels are right."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        gender, years = int(rng.integers(2)), int(rng.choice((20, 22, 45, 48, 60)))
        folder = f"{number:06}_{ATTRIBUTES['gender'][gender]}_X_{years}"
        for photograph, mask in MASKS.items():
            band = age_band(years)
            rows.append((folder, f"{number:06}", f"{photograph}.jpg", photograph, mask, gender, band, float(years)))
    columns = ["folder", "person", "file", "photograph", "mask", "gender", "age", "years"]
    table = pd.DataFrame(rows, columns=columns)
    columns = dict.fromkeys(("folder", "person", "file", "photograph"), "category")
    return evidence.with_correction_names(table.astype(columns))


def probabilities(truth: pd.DataFrame, seed: int = 1, sure: float = 2.0, of_person: float = 1.0) -> np.ndarray:
    """The output of a calibrated net, (n, 18), with noise of each person, and of each photograph."""
    rng = np.random.default_rng(seed)
    sides = []
    for name, values in ATTRIBUTES.items():
        codes = pd.factorize(truth["folder"])[0]
        shared = rng.normal(0, of_person, (codes.max() + 1, len(values)))[codes]
        logits = sure * np.eye(len(values))[truth[name]] + shared + rng.normal(0, 1, (len(truth), len(values)))
        powers = np.exp(logits)
        sides.append(powers / powers.sum(1, keepdims=True))
    classes = np.einsum("ni,nj,nk->nijk", *sides)
    return classes.reshape(len(truth), -1)


def people_who_look_older_or_younger(
    count: int, seed: int, wrong: float
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """A table, calibrated probabilities of its photographs, and which people have an age of another band.

    Apparent ages spread by 4 years around the years, and each photograph's by 2 years around the person's.
    """
    rng, table, numbers = np.random.default_rng(seed), people(count, seed), np.repeat(np.arange(count), 7)
    years = rng.integers(18, 66, count).astype(float)
    seen = rng.normal(rng.normal(years, 4)[numbers], 2)
    below = 0.5 * (1 + np.vectorize(math.erf)((np.array([29.5, 59.5]) - seen[:, None]) / np.sqrt(2 * (4**2 + 2**2))))
    ages = np.diff(np.pad(below, ((0, 0), (1, 1)), constant_values=(0, 1)))
    is_wrong, given = rng.random(count) < wrong, years.copy()
    for person in np.flatnonzero(is_wrong):
        given[person] = rng.choice(years[age_band(years) != age_band(years[person])])
    table["years"], table["age"] = given[numbers], age_band(given)[numbers]
    return table, np.einsum("ni,nj->nij", np.full((len(table), 6), 1 / 6), ages).reshape(-1, 18), is_wrong


def relabelled(truth: pd.DataFrame, person: str, **labels) -> pd.DataFrame:
    table = truth.copy()
    for name, value in labels.items():
        table.loc[table["person"] == person, name] = value
    return table


def exchanged(truth: pd.DataFrame, person: str) -> pd.DataFrame:
    """The true labels where a person's files incorrect_mask and normal have each other's name."""
    table = truth.copy()
    for name, (_, other) in evidence.EXCHANGED.items():
        table.loc[(table["person"] == person) & (table["photograph"] == name), "mask"] = other
    return table


def ranked(table: pd.DataFrame, p: np.ndarray) -> list[ranking.Suspect]:
    return ranking.rank_suspects(table, evidence.find_label_errors(table, p))


def test_a_wrong_gender_comes_first_with_its_correction():
    truth = people(60)
    table = relabelled(truth, "000007", gender=1 - truth[truth["person"] == "000007"]["gender"].iloc[0])
    first, second, *_ = ranked(table, probabilities(truth))
    (row,) = first.corrections
    assert (first.person, row["person"], row["photograph"], row["field"]) == ("000007", "000007", "all", "gender")
    assert {row["given"], row["correct"]} == {"male", "female"} and row["correct"] in first.suggestion
    assert first.folder.split("_")[1] == ("female" if row["correct"] == "female" else "male")
    assert first.probability > 0.9 and second.probability < 0.6
    assert len(first.photographs) == 7 and first.photographs[0] == (f"{first.folder}/mask1.jpg", "mask1: worn")


def test_exchanged_photographs_are_found():
    names = people(60)
    first, second, *_ = ranked(names, probabilities(exchanged(names, "000031")))
    assert (
        first.person == "000031"
        and first.suggestion == "the photographs named incorrect mask and normal look exchanged"
    )
    assert [(row["photograph"], row["given"], row["correct"]) for row in first.corrections] == [
        ("incorrect_mask", "incorrect", "not_worn"),
        ("normal", "not_worn", "incorrect"),
    ]
    assert first.probability > 0.7 > second.probability


def test_a_net_that_sees_little_doubts_few():
    table = people(200)
    blind = table.copy()
    blind["mask"] = 0  # it takes every mask for worn, and is a little less sure where it is not
    p = 0.9 * probabilities(blind, sure=3.0) + 0.1 * probabilities(table, sure=3.0)
    found = [one.probability for one in evidence.find_label_errors(table, p) if one.kind == "mask"]
    assert sum(found) < 5, sum(found)


def test_one_photograph_may_show_another_state():
    names = people(60)
    truth = names.copy()
    truth.loc[(truth["person"] == "000004") & (truth["photograph"] == "mask3"), "mask"] = 2
    of_masks = [one for one in evidence.find_label_errors(names, probabilities(truth, sure=5.0)) if one.kind == "mask"]
    first = max(of_masks, key=lambda finding: finding.probability)
    (row,) = first.corrections
    assert first.folder.startswith("000004") and first.suggestion == "the photograph named mask3 looks not worn"
    assert (row["photograph"], row["given"], row["correct"]) == ("mask3", "worn", "not_worn")


def test_an_age_that_is_near_the_other_band_is_weaker_evidence():
    table, p, _ = people_who_look_older_or_younger(200, 0, 0.0)
    for person, years in (("000010", 20.0), ("000011", 29.0), ("000012", 35.0)):
        table = relabelled(table, person, age=age_band(years), years=years)
        p[(table["person"] == person).to_numpy()] = np.tile([0.2, 0.8, 0.0], 6) / 6
    far, near, _ = [one for one in evidence.find_label_errors(table, p) if one.kind == "age"][10:13]
    assert far.nats == near.nats > 0 and far.probability > 5 * near.probability
    assert far.corrections[0] | {"given": "20", "correct": "30_to_59"} == far.corrections[0]
    unknown = relabelled(table, "000010", years=np.nan)  # a band that was corrected before
    found = [one for one in evidence.find_label_errors(unknown, p) if one.kind == "age"][10]
    assert near.probability < found.probability and found.corrections[0]["given"] == "under_30"


@pytest.mark.parametrize(("wrong", "seed"), [(0.0, 0), (0.05, 1), (0.05, 2)])
def test_the_spread_of_looks_is_not_counted_twice(wrong, seed):
    """The net already knows that some of 29 look 30. Counted twice, only a quarter of the errors was expected."""
    table, p, is_wrong = people_who_look_older_or_younger(400, seed, wrong)
    expected = sum(one.probability for one in evidence.find_label_errors(table, p) if one.kind == "age")
    there = int(is_wrong.sum())
    assert there / 1.6 <= expected <= 1.6 * there + 2, (expected, there)


def expected_wrong_genders(count: int, share: float, **how) -> tuple[float, int]:
    """How many wrong genders are expected among so many people of whom this share is wrong, and how many there are."""
    truth, rng = people(count), np.random.default_rng(5)
    wrong = rng.choice(truth["person"].unique(), int(share * count), replace=False)
    table = truth.copy()
    flipped = table["person"].isin(wrong)
    table.loc[flipped, "gender"] = 1 - table.loc[flipped, "gender"]
    found = evidence.find_label_errors(table, probabilities(truth, **how))
    return sum(one.probability for one in found if one.kind == "gender"), len(wrong)


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_probabilities_add_up_to_the_number_of_errors(share):
    expected, there = expected_wrong_genders(600, share, sure=2.5)
    assert abs(expected - there) < 4 + 0.3 * there, expected


@pytest.mark.parametrize("seed", [0, 4])
def test_a_fifth_of_wrong_genders_is_seen_as_such_where_looks_overlap(seed):
    """Many wrong labels with a good net look like few with a bad net: the prior must rule out neither."""
    expected, there = expected_wrong_genders(300, 0.2, seed=seed, sure=1.5)
    assert there / 2 < expected < 2 * there, expected


def test_a_label_that_nobody_has_is_suggested_to_nobody():
    truth = people(40)
    table = truth[(truth["gender"] == 1) & (truth["mask"] != 2)].reset_index(drop=True)
    found = evidence.find_label_errors(table, probabilities(table))
    assert max(one.probability for one in found if one.kind == "gender") < 0.01
    assert sum(one.probability for one in found if one.kind == "mask" and "not worn" in one.suggestion) < 0.1


def test_the_prior_counts_once_for_a_person_and_not_for_each_photograph():
    table = people(100)
    table["age"] = 1 + table["person"].isin([f"{number:06}" for number in range(5)])  # five of a hundred are old
    table["years"] = np.where(table["age"] == 2, 60.0, 45.0)
    before = np.log([1e-6, 0.95, 0.05])  # what a fair net says before it has looked
    logits = np.tile(before, (len(table), 1))
    rows = np.arange(len(table))
    logits[rows, table["age"]] += np.random.default_rng(0).normal(4, 1, len(table))
    unlike = (table["person"] == "000050").to_numpy()
    logits[unlike] = before + np.array([0, 0, 2.5])  # the label says 45, each photograph rather 60
    ages = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = np.einsum("ni,nj->nij", np.full((len(table), 6), 1 / 6), ages).reshape(-1, 18)
    found = {one.folder: one for one in evidence.find_label_errors(table, p) if one.kind == "age"}
    suspect = found[table["folder"][unlike].iloc[0]]
    assert suspect.nats == pytest.approx(7 * 2.5, rel=0.01)  # and not 7 log(0.05 / 0.95) less
    assert suspect.probability > 3 * sorted(one.probability for one in found.values())[-2] > 0


def test_exchanged_photographs_are_no_reason_to_doubt_others():
    names = people(200)
    truth = names
    for number in range(20):
        truth = exchanged(truth, f"{number:06}")
    found = [one for one in evidence.find_label_errors(names, probabilities(truth, sure=4.0)) if one.kind == "mask"]
    of_exchanged = sum(one.probability for one in found if one.folder < "000020")
    of_others = sum(one.probability for one in found if one.folder >= "000020")
    assert of_exchanged > 15 and of_others < 5, (of_exchanged, of_others)


def test_corrections_name_the_folder_of_a_person_with_two_folders():
    table = people(3)
    table["person"] = table["person"].cat.add_categories("twice")
    table.loc[table["person"].isin(["000000", "000001"]), "person"] = "twice"
    table = evidence.with_correction_names(table)
    called = {row["person"] for one in ranked(table, probabilities(table)) for row in one.corrections}
    assert called == {*table["folder"].unique()[:2], "000002"}
    left = table[table["folder"] != table["folder"].iloc[0]].reset_index(drop=True)  # the first was decided on
    called = {row["person"] for one in ranked(left, probabilities(left)) for row in one.corrections}
    assert called == {table["folder"].unique()[1], "000002"}


def test_all_likely_findings_are_suggested_together():
    rows = people(1)
    gender, mask, age = (
        evidence.Finding(rows["folder"].iloc[0], kind, kind, 9.0, probability, [{"field": kind}])
        for kind, probability in (("gender", 0.9), ("mask", 0.6), ("age", 0.2))
    )
    (one,) = ranking.rank_suspects(rows, [age, mask, gender])
    assert one.suggestion == "gender; mask" and [row["field"] for row in one.corrections] == ["gender", "mask"]
    assert one.probability == pytest.approx(1 - 0.1 * 0.4 * 0.8)
    (one,) = ranking.rank_suspects(rows, [age, dataclasses.replace(gender, probability=0.3)])
    assert one.suggestion == "gender"
    (against,) = ranking.rank_suspects(rows, [dataclasses.replace(gender, nats=-1.1)])
    assert against.suggestion == "perhaps gender" and "fit the folder's label 3.0 times as well" in against.evidence
    assert ranking.expected_errors([one, one], 1) == one.probability


def test_classes_are_those_of_the_table():
    table = people(2)
    p = np.eye(18)[to_class(table["mask"], table["gender"], table["age"])]
    assert max(one.nats for one in evidence.find_label_errors(table, p)) < 0
