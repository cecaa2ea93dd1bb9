import pandas as pd
import pytest

from toolkit import corrections
from toolkit.console import InputError

# The seed's own table, as shared by its authors: who is wrong about what.
SURE_MALE = ["001720", "006359", "006360", "006361", "006362", "006363", "006364"]
SURE_FEMALE = ["001498-1", "004432", "005223"]
SURE_EXCHANGED = ["000020", "005227"]
NOT_SURE_MALE = [
    "000010",
    "000357",
    "000664",
    "000667",
    "000725",
    "000736",
    "000767",
    "000817",
    "003780",
    "003798",
    "004281",
    "006504",
]
MASKS = {"mask1": 0, "incorrect_mask": 1, "normal": 2}
FIELDS = "person,photograph,field,given,correct,certainty,note\n"


def faces(**gender_of_person: int) -> pd.DataFrame:
    """Three photographs of each person, all 25 years old."""
    rows = [
        {"person": person, "folder": f"{person}_x_Asian_25", "photograph": photograph, "mask": mask, "gender": gender}
        for person, gender in gender_of_person.items()
        for photograph, mask in MASKS.items()
    ]
    return pd.DataFrame(rows).assign(age=0, years=25.0)


def everybody() -> pd.DataFrame:
    female, male = [*SURE_MALE, *NOT_SURE_MALE, "good"], [*SURE_FEMALE, *SURE_EXCHANGED]
    return faces(**dict.fromkeys(female, 1), **dict.fromkeys(male, 0))


@pytest.fixture
def table(tmp_path):
    def write(*rows: str) -> str:
        (tmp_path / "mine.csv").write_text(FIELDS + "".join(f"{row}\n" for row in rows))
        return str(tmp_path / "mine.csv")

    return write


@pytest.mark.parametrize(
    ("relabel", "male", "people"), [("sure", SURE_MALE, 12), ("all", SURE_MALE + NOT_SURE_MALE, 24)]
)
def test_the_seeds_table_is_applied_whole(relabel, male, people):
    before = everybody()
    after, report = corrections.apply(before, relabel)
    gender = after.groupby("person")["gender"].unique().map(list).to_dict()
    expected = {**dict.fromkeys(SURE_MALE + NOT_SURE_MALE, [1]), "good": [1], **dict.fromkeys(SURE_EXCHANGED, [0])}
    assert gender == expected | dict.fromkeys(male, [0]) | dict.fromkeys(SURE_FEMALE, [1])
    masks = after.set_index(["person", "photograph"])["mask"]
    for person in SURE_EXCHANGED:
        assert (masks[person, "incorrect_mask"], masks[person, "normal"], masks[person, "mask1"]) == (2, 1, 0)
    assert masks["good"].to_dict() == MASKS
    assert len(report.people) == people and not report.skipped and not report.unknown
    assert len(report.sha256) == 64 and before.equals(everybody())


def test_none_changes_nothing():
    after, report = corrections.apply(everybody(), "none")
    assert after.equals(everybody()) and report.sha256 is None and str(report) == "label corrections: none"


def test_a_corrected_data_set_is_not_turned_back_and_unknown_people_are_counted():
    corrected = faces(**dict.fromkeys(SURE_MALE, 0))
    after, report = corrections.apply(corrected, "sure")
    assert after.equals(corrected)
    assert len(report.skipped) == len(SURE_MALE) and len(report.unknown) == len(SURE_FEMALE) + len(SURE_EXCHANGED)
    assert "skipped 7" in str(report) and "001720 (not female)" in str(report)


def test_all_that_other_lists_hold_can_be_said(table):
    path = table(
        "a,all,age,under_30,60_and_over,sure,", "b,all,age,25,58,not sure,", "c,normal,mask,not_worn,worn,sure,a hand",
        "d,all,leave_out,,,sure,not a face", "e,mask1,leave_out,,,sure,", "f_x_Asian_25,all,gender,male,female,sure,",
        "g,mask9,mask,worn,incorrect,sure,",
    )  # fmt: skip
    after, report = corrections.apply(faces(**dict.fromkeys("abcdefg", 0)), path)
    by = after.set_index(["person", "photograph"])
    assert set(by.loc["a", "age"]) == {2} and by.loc["a", "years"].isna().all()
    assert set(by.loc["b", "age"]) == {1} and set(by.loc["b", "years"]) == {58}
    assert by.loc[("c", "normal"), "mask"] == 0
    assert "d" not in by.index and len(by.loc["e"]) == 2 and set(by.loc["f", "gender"]) == {1}
    assert report.changed == {"mask": 1, "gender": 3, "age": 6, "left out": 4}
    assert report.people == list("abcdef") and report.unknown == ["g mask9"]
    assert after.index.tolist() == list(range(len(after)))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,all,gender,male,woman,sure,", "line 2: correct: expected male, female, found 'woman'"),
        ("a,all,gendr,male,female,sure,", "line 2: field: expected mask, gender, age or leave_out, found 'gendr'"),
        ("a,all,gender,male,female,maybe,", "line 2: certainty: expected sure or not sure, found 'maybe'"),
        ("a,all,age,young,old,sure,", "line 2: given: expected under_30, 30_to_59, 60_and_over"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(table, row, expected):
    with pytest.raises(InputError) as error:
        corrections.apply(faces(a=0), table(row, "b,all,age,20,30,sure,", "b,all,age,20,40,sure,"))
    assert expected in str(error.value)
    assert "line 4: contradicts an earlier line, which says 30" in str(error.value)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="RELABEL"):
        corrections.apply(faces(a=0), str(tmp_path / "nothing.csv"))
