"""Who is suspect, of what, and how likely: on nets that are made up, so that the truth is known."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageEnhance

import dataset
from toolkit.data.store import Store
from toolkit.label_errors import duplicates, evidence, noise, ranking
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
    return evidence.with_names(table.astype(columns))


def probabilities(truth: pd.DataFrame, seed: int = 1, sure: float = 2.0, of_person: float = 1.0) -> np.ndarray:
    """What a fair net says: a person is as hard as another for all seven photographs, and each of those for itself."""
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


def relabelled(truth: pd.DataFrame, person: str, **labels) -> pd.DataFrame:
    table = truth.copy()
    for name, value in labels.items():
        table.loc[table["person"] == person, name] = value
    return table


def exchanged(truth: pd.DataFrame, person: str) -> pd.DataFrame:
    """The file of incorrect_mask is called normal, and the other way round: so the truth of the names is wrong."""
    table = truth.copy()
    for name, (_, other) in evidence.EXCHANGED.items():
        table.loc[(table["person"] == person) & (table["photograph"] == name), "mask"] = other
    return table


def suspects(faces: pd.DataFrame, p: np.ndarray) -> list[ranking.Suspect]:
    return ranking.rank(faces, evidence.find(faces, p))


def test_a_wrong_gender_comes_first_with_its_correction():
    truth = people(60)
    faces = relabelled(truth, "000007", gender=1 - truth[truth["person"] == "000007"]["gender"].iloc[0])
    first, second, *_ = suspects(faces, probabilities(truth))
    (row,) = first.corrections
    assert (first.person, row["person"], row["photograph"], row["field"]) == ("000007", "000007", "all", "gender")
    assert {row["given"], row["correct"]} == {"male", "female"} and row["correct"] in first.suggests
    assert first.folder.split("_")[1] == ("female" if row["correct"] == "female" else "male")
    assert first.probability > 0.9 and second.probability < 0.6
    assert len(first.photographs) == 7 and first.photographs[0] == (f"{first.folder}/mask1.jpg", "mask1: worn")


def test_exchanged_photographs_give_each_other_away():
    names = people(60)
    first, second, *_ = suspects(names, probabilities(exchanged(names, "000031")))
    assert first.person == "000031" and first.suggests == "incorrect mask and normal exchanged"
    assert [(row["photograph"], row["given"], row["correct"]) for row in first.corrections] == [
        ("incorrect_mask", "incorrect", "not_worn"),
        ("normal", "not_worn", "incorrect"),
    ]
    assert first.probability > 0.9 > second.probability


def test_a_net_that_sees_little_doubts_few():
    faces = people(200)
    blind = faces.copy()
    blind["mask"] = 0  # it takes every mask for worn, and is a little less sure where it is not
    p = 0.9 * probabilities(blind, sure=3.0) + 0.1 * probabilities(faces, sure=3.0)
    found = [one.probability for one in evidence.find(faces, p) if one.kind == "mask"]
    assert sum(found) < 5, sum(found)


def test_one_photograph_may_show_another_state():
    names = people(60)
    truth = names.copy()
    truth.loc[(truth["person"] == "000004") & (truth["photograph"] == "mask3"), "mask"] = 2
    of_masks = [one for one in evidence.find(names, probabilities(truth, sure=5.0)) if one.kind == "mask"]
    first = max(of_masks, key=lambda finding: finding.probability)
    (row,) = first.corrections
    assert first.folder.startswith("000004") and first.suggests == "mask3 not worn"
    assert (row["photograph"], row["given"], row["correct"]) == ("mask3", "worn", "not_worn")


def test_an_age_that_is_near_the_other_band_is_weaker_evidence():
    truth = people(60)
    looks_old = relabelled(truth, "000010", age=1)
    looks_old = relabelled(looks_old, "000011", age=1)
    p = probabilities(looks_old, of_person=0.3)
    faces = relabelled(relabelled(truth, "000010", age=0, years=20.0), "000011", age=0, years=29.0)
    ages = {one.folder.split("_")[0]: one for one in evidence.find(faces, p) if one.kind == "age"}
    far, near = ages["000010"], ages["000011"]
    assert far.probability > 10 * near.probability and abs(far.nats - near.nats) < 15
    assert far.corrections[0] | {"given": "20", "correct": "30_to_59"} == far.corrections[0]
    unknown = relabelled(faces, "000010", years=np.nan)  # a band that was corrected before
    (row,) = next(one.corrections for one in evidence.find(unknown, p) if (one.folder, one.kind) == (far.folder, "age"))
    assert row["given"] == "under_30"


def test_chances_are_those_of_the_errors_that_there_are():
    truth, rng = people(600), np.random.default_rng(5)
    for share in (0.0, 0.05):
        wrong = set(rng.choice(truth["person"].unique(), int(share * 600), replace=False))
        faces = truth.copy()
        flipped = faces["person"].isin(wrong)
        faces.loc[flipped, "gender"] = 1 - faces.loc[flipped, "gender"]
        genders = [one for one in evidence.find(faces, probabilities(truth, sure=2.5)) if one.kind == "gender"]
        expected = sum(one.probability for one in genders)
        assert abs(expected - len(wrong)) < 4 + 0.3 * len(wrong), (share, expected)


def test_what_nobody_has_is_suggested_to_nobody():
    truth = people(40)
    faces = truth[(truth["gender"] == 1) & (truth["mask"] != 2)].reset_index(drop=True)
    found = evidence.find(faces, probabilities(faces))
    assert max(one.probability for one in found if one.kind == "gender") < 0.01
    assert sum(one.probability for one in found if one.kind == "mask" and "not worn" in one.suggests) < 0.1


def test_how_common_a_value_is_counts_once_and_not_for_each_photograph():
    faces = people(100)
    faces["age"] = 1 + faces["person"].isin([f"{number:06}" for number in range(5)])  # five of a hundred are old
    faces["years"] = np.where(faces["age"] == 2, 60.0, 45.0)
    before = np.log([1e-6, 0.95, 0.05])  # what a fair net says before it has looked
    logits = np.tile(before, (len(faces), 1))
    rows = np.arange(len(faces))
    logits[rows, faces["age"]] += np.random.default_rng(0).normal(4, 1, len(faces))
    unlike = (faces["person"] == "000050").to_numpy()
    logits[unlike] = before + np.array([0, 0, 2.5])  # the label says 45, each photograph rather 60
    ages = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = np.einsum("ni,nj->nij", np.full((len(faces), 6), 1 / 6), ages).reshape(-1, 18)
    found = {one.folder: one for one in evidence.find(faces, p) if one.kind == "age"}
    suspect = found[faces["folder"][unlike].iloc[0]]
    assert suspect.nats < 0  # each photograph for itself is still more likely one of 45
    assert suspect.probability > 3 * sorted(one.probability for one in found.values())[-2] > 0


def test_exchanged_photographs_are_no_reason_to_doubt_others():
    names = people(200)
    truth = names
    for number in range(20):
        truth = exchanged(truth, f"{number:06}")
    found = [one for one in evidence.find(names, probabilities(truth, sure=4.0)) if one.kind == "mask"]
    of_exchanged = sum(one.probability for one in found if one.folder < "000020")
    of_others = sum(one.probability for one in found if one.folder >= "000020")
    assert of_exchanged > 15 and of_others < 5, (of_exchanged, of_others)


def test_somebody_with_two_folders_is_called_by_their_names():
    faces = people(3)
    faces["person"] = faces["person"].cat.add_categories("twice")
    faces.loc[faces["person"].isin(["000000", "000001"]), "person"] = "twice"
    faces = evidence.with_names(faces)
    called = {row["person"] for one in suspects(faces, probabilities(faces)) for row in one.corrections}
    assert called == {*faces["folder"].unique()[:2], "000002"}
    left = faces[faces["folder"] != faces["folder"].iloc[0]].reset_index(drop=True)  # the first was decided on
    called = {row["person"] for one in suspects(left, probabilities(left)) for row in one.corrections}
    assert called == {faces["folder"].unique()[1], "000002"}


def test_noise_says_how_much_evidence_counts_and_how_much_is_wrong():
    rng = np.random.default_rng(0)
    true = rng.integers(2, size=4000)
    once = np.where(true == 1, 1, -1) * 3.0 + rng.normal(0, 2.0, 4000)  # log odds are 1.5 times that
    evidence = 7 * np.stack([np.zeros(4000), 1.5 * once], 1)  # as if it were seven times as good as it is
    given = np.where(rng.random(4000) < 0.04, 1 - true, true)
    found = noise.fit(evidence, np.full(2, 0.5), np.eye(2)[given])
    assert found.scale == pytest.approx(1 / 7, rel=0.3) and found.share == pytest.approx(0.04, rel=0.3)
    chance = noise.wrong(evidence, np.full(2, 0.5), np.eye(2)[given], found).sum(1)
    assert chance.sum() == pytest.approx((given != true).sum(), rel=0.15)
    sure = chance > 0.8
    assert (given != true)[sure].mean() == pytest.approx(chance[sure].mean(), abs=0.08)


def test_copies_under_another_id_are_found_however_they_were_saved(drawn, tmp_path):
    faces, _ = dataset.read_faces(drawn.train)
    changes = [
        lambda photo: photo.resize((300, 400)),
        lambda photo: ImageEnhance.Brightness(photo).enhance(1.2),
        lambda photo: photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ]
    paths, copies = dataset.paths(faces, drawn.train), []
    for number, (change, folder) in enumerate(zip(changes, faces["folder"].unique(), strict=False)):
        for row in np.flatnonzero(faces["folder"] == folder):
            one = faces.iloc[row].to_dict() | {"folder": f"z{number}", "person": f"z{number}", "file": f"{row}.jpg"}
            copies.append(one)
            with Image.open(paths[row].decode()) as photo:
                change(photo.convert("RGB")).save(tmp_path / f"{row}.jpg", quality=70)
    table = pd.concat(
        [faces.astype({"folder": str, "person": str, "file": str}), pd.DataFrame(copies)], ignore_index=True
    )
    store = Store([*paths, *(str(tmp_path / one["file"]).encode() for one in copies)], (64, 48))
    assert store.fill() == {}
    found = {one.folder: one for one in evidence.find_twins(evidence.with_names(table), store)}
    for number, folder in enumerate(faces["folder"].unique()[:3]):
        copy = found.pop(f"z{number}")
        assert copy.probability > 0.5 and folder in copy.suggests
        (row,) = copy.corrections
        assert (row["person"], row["field"], row["correct"]) == (f"z{number}", "leave_out", "yes")
    assert sum(one.probability for one in found.values()) < 0.5  # the one that was copied is not a copy


class Pixels:
    """Photographs of chance, which have a face in common."""

    def __init__(self, count: int):
        generator = torch.Generator().manual_seed(0)
        face = torch.rand((1, 16, 12, 3), generator=generator) * 200
        self.pixels = (face + 40 * torch.rand((count, 16, 12, 3), generator=generator)).to(torch.uint8)

    def __len__(self):
        return len(self.pixels)

    def gather(self, index):
        return self.pixels[index]


def test_who_is_like_nobody_is_no_copy():
    store = Pixels(7 * 200)
    codes = np.repeat(np.arange(200), 7)
    nearest, chance, nats = duplicates.find(store, codes, np.tile(np.arange(7), 200), np.arange(200).astype(str))
    assert chance.sum() < 0.5 and nats.max() < 3 and (nearest < np.maximum(np.arange(200), 1)).all()
    store.pixels[7 * 150 : 7 * 151] = store.pixels[:7]
    people = np.arange(200).astype(str)
    nearest, chance, _ = duplicates.find(store, codes, np.tile(np.arange(7), 200), people)
    assert chance[150] > 0.9 and nearest[150] == 0 and chance.sum() < chance[150] + 0.5
    people[150] = people[0]  # another folder of the same person is no copy
    assert duplicates.find(store, codes, np.tile(np.arange(7), 200), people)[1][150] < 0.5


@pytest.mark.parametrize("people", [["a"], ["a", "a"], ["a", "b"]])
def test_who_has_nobody_to_be_a_copy_of_is_none(people):
    store = Pixels(7 * len(people))
    codes, names = np.repeat(np.arange(len(people)), 7), np.tile(np.arange(7), len(people))
    _, chance, nats = duplicates.find(store, codes, names, np.array(people))
    assert chance.max() < 0.01 and nats.max() < 0


def test_all_that_is_likely_is_suggested_at_once():
    rows = people(1)
    gender, mask, age = (
        evidence.Finding(rows["folder"].iloc[0], kind, kind, 9.0, chance, [{"field": kind}])
        for kind, chance in (("gender", 0.9), ("mask", 0.6), ("age", 0.2))
    )
    (one,) = ranking.rank(rows, [age, mask, gender])
    assert one.suggests == "gender; mask" and [row["field"] for row in one.corrections] == ["gender", "mask"]
    assert one.probability == pytest.approx(1 - 0.1 * 0.4 * 0.8)
    (one,) = ranking.rank(rows, [age, dataclasses.replace(gender, probability=0.3)])
    assert one.suggests == "gender"
    assert ranking.expected_errors([one, one], 1) == one.probability


def test_classes_are_those_of_the_table():
    faces = people(2)
    p = np.eye(18)[to_class(faces["mask"], faces["gender"], faces["age"])]
    assert max(one.nats for one in evidence.find(faces, p)) < 0
