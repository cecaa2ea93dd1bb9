import hashlib
import pathlib
import shutil
import unicodedata

import pandas as pd
import pytest

import dataset
from toolkit.label_errors import corrections, decisions
from toolkit.system import files
from toolkit.system.console import InputError

# The seed's own table, as shared by its authors: who is wrong about what.
SURE_MALE = ["001720", "006359", "006360", "006361", "006362", "006363", "006364"]
SURE_FEMALE = ["001498-1", "004432", "005223"]
SURE_EXCHANGED = ["000020", "005227"]
NOT_SURE_MALE = [
    "000010", "000357", "000664", "000667", "000725", "000736", "000767", "000817", "003780", "003798", "004281",
    "006504",
]  # fmt: skip
MASKS = {"mask1": 0, "incorrect_mask": 1, "normal": 2}
NOWHERE = pathlib.Path("/nowhere")  # no photograph is read unless a row says what its file holds
FIELDS = "person,photograph,field,given,correct,certainty,note\n"
WITH_SHA256 = FIELDS.strip() + ",sha256\n"


def labelled(**gender_of_person: int) -> pd.DataFrame:
    """Three photographs of each person, all 25 years old."""
    rows = [
        {"person": person, "folder": f"{person}_x_Asian_25", "photograph": photograph, "mask": mask, "gender": gender}
        for person, gender in gender_of_person.items()
        for photograph, mask in MASKS.items()
    ]
    return pd.DataFrame(rows).assign(age=0, years=25.0)


def everybody() -> pd.DataFrame:
    female, male = [*SURE_MALE, *NOT_SURE_MALE, "good"], [*SURE_FEMALE, *SURE_EXCHANGED]
    return labelled(**dict.fromkeys(female, 1), **dict.fromkeys(male, 0))


def as_labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The table without what was said of corrections."""
    return table.drop(columns="corrected", errors="ignore")


@pytest.fixture
def table(tmp_path):
    def write(*rows: str, file: str = "mine.csv", fields: str = FIELDS) -> str:
        (tmp_path / file).write_text(fields + "".join(f"{row}\n" for row in rows))
        return str(tmp_path / file)

    return write


def photographs(root: pathlib.Path, **contents: str) -> pd.DataFrame:
    """The table of the photographs of a man, whose files {stem, or stem__extension: content} are made."""
    folder = root / "a_male_Asian_25"
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        stem, _, extension = name.partition("__")
        (folder / f"{stem}.{extension or 'jpg'}").write_text(content)
    return dataset.read_faces(root)[0]


def hash_of(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


@pytest.mark.parametrize(
    ("relabel", "male", "people"), [("sure", SURE_MALE, 12), ("all", SURE_MALE + NOT_SURE_MALE, 24)]
)
def test_the_seeds_table_is_applied_whole(relabel, male, people):
    before = everybody()
    after, report = corrections.apply(before, relabel, NOWHERE)
    gender = after.groupby("person")["gender"].unique().map(list).to_dict()
    expected = {**dict.fromkeys(SURE_MALE + NOT_SURE_MALE, [1]), "good": [1], **dict.fromkeys(SURE_EXCHANGED, [0])}
    assert gender == expected | dict.fromkeys(male, [0]) | dict.fromkeys(SURE_FEMALE, [1])
    masks = after.set_index(["person", "photograph"])["mask"]
    for person in SURE_EXCHANGED:
        assert (masks[person, "incorrect_mask"], masks[person, "normal"], masks[person, "mask1"]) == (2, 1, 0)
    assert masks["good"].to_dict() == MASKS
    said = after.set_index(["person", "photograph"])["corrected"]
    assert said["001720", "mask1"] == "female to male" and not said["good"].any()
    assert (said["000020", "normal"], said["000020", "mask1"]) == ("not worn to incorrect", "")
    assert len(report.people) == people and not report.skipped and not report.unknown
    assert report.files == {"outliers.csv": files.sha256(corrections.OUTLIERS)} and before.equals(everybody())


def test_none_changes_nothing():
    after, report = corrections.apply(everybody(), "none", NOWHERE)
    assert as_labelled(after).equals(everybody()) and report.files == {} and str(report) == "label corrections: none"


def test_an_id_that_another_data_set_has_by_chance_is_pointed_out():
    """Its labels may be the same by chance, and a mask is known by the name of the file alone."""
    _, report = corrections.apply(labelled(**{"000020": 1, "good": 1}), "sure", NOWHERE)
    assert str(report).endswith("; if these are not the contest's photographs, set RELABEL=none")
    _, report = corrections.apply(labelled(good=1), "sure", NOWHERE)
    assert "RELABEL=none" not in str(report)


def test_a_corrected_data_set_is_not_turned_back_and_unknown_people_are_counted():
    corrected = labelled(**dict.fromkeys(SURE_MALE, 0))
    after, report = corrections.apply(corrected, "sure", NOWHERE)
    assert as_labelled(after).equals(corrected) and not any(after["corrected"])
    assert len(report.skipped) == len(SURE_MALE) and len(report.unknown) == len(SURE_FEMALE) + len(SURE_EXCHANGED)
    assert "skipped 7" in str(report) and "001720 (not female)" in str(report)


def test_every_field_can_be_corrected(table):
    path = table(
        "a,all,age,under_30,60_and_over,sure,", "b,all,age,25,58,not sure,", "c,normal,mask,not_worn,worn,sure,a hand",
        "d,all,leave_out,,,sure,not a face", "e,mask1,leave_out,,,sure,", "f_x_Asian_25,all,gender,male,female,sure,",
    )  # fmt: skip
    after, report = corrections.apply(labelled(**dict.fromkeys("abcdefg", 0)), path, NOWHERE)
    by = after.set_index(["person", "photograph"])
    assert set(by.loc["a", "age"]) == {2} and by.loc["a", "years"].isna().all()
    assert set(by.loc["b", "age"]) == {1} and set(by.loc["b", "years"]) == {58}
    assert by.loc[("c", "normal"), "mask"] == 0
    assert "d" not in by.index and len(by.loc["e"]) == 2 and set(by.loc["f", "gender"]) == {1}
    assert report.changed == {"mask": 1, "gender": 3, "age": 6, "left out": 4}
    assert report.people == list("abcdef") and report.unknown == []
    assert after.index.tolist() == list(range(len(after)))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,all,gender,male,woman,sure,", "line 2: correct: expected male, female, found 'woman'"),
        ("a,all,gendr,male,female,sure,", "line 2: field: expected mask, gender, age or leave_out, found 'gendr'"),
        ("a,all,gender,male,female,maybe,", "line 2: certainty: expected sure or not sure, found 'maybe'"),
        ("a,all,age,young,old,sure,", "line 2: given: expected under_30, 30_to_59, 60_and_over"),
        ("a,all,leave_out,,maybe,sure,", "line 2: correct: expected nothing, yes, no, found 'maybe'"),
        ("a,all,leave_out,yes,,sure,", "line 2: given: expected nothing, no, found 'yes'"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(table, row, expected):
    with pytest.raises(InputError) as error:
        corrections.apply(labelled(a=0), table(row, "b,all,age,20,30,sure,", "b,all,age,20,40,sure,"), NOWHERE)
    assert expected in str(error.value)
    assert "line 4: contradicts an earlier line, which says 30: " in str(error.value)


def test_lines_are_counted_as_an_editor_counts_them(table):
    with pytest.raises(InputError, match="mine.csv line 5: field: expected mask"):
        corrections.read_corrections(table('a,all,gender,male,female,sure,"two\nlines"', "", "b,all,gendr,male,,sure,"))


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="RELABEL"):
        corrections.apply(labelled(a=0), str(tmp_path / "nothing.csv"), NOWHERE)


def test_several_sources_apply_together(table):
    first, second = table("good,all,gender,female,male,sure,"), table("000010,all,age,25,58,not sure,", file="b,c.csv")
    third = table("good,all,gender,female,male,sure,", "good,normal,leave_out,,,sure,", file="d.csv")
    after, report = corrections.apply(everybody(), f"sure, {first} ,{third},sure", NOWHERE)
    by = after.set_index(["person", "photograph"])
    assert set(by.loc["good", "gender"]) == {0} and set(by.loc[SURE_MALE[0], "gender"]) == {0}
    assert set(by.loc[NOT_SURE_MALE[0], "gender"]) == {1} and len(by.loc["good"]) == 2
    assert len(report.people) == 13 and report.rows == 14 + 3
    assert report.files == {
        path.name: files.sha256(path) for path in (corrections.OUTLIERS, *map(pathlib.Path, (first, third)))
    }
    assert str(report).startswith("label corrections (outliers.csv, mine.csv, d.csv, 17 rows): mask of 4 ")
    after, report = corrections.apply(everybody(), second, NOWHERE)  # an existing file, whose name has a comma
    assert list(report.files) == ["b,c.csv"] and report.people == ["000010"]
    assert corrections.read_corrections("sure,all")[0].shape == corrections.read_corrections("all")[0].shape


def test_files_of_one_name_are_both_in_the_report(table, tmp_path):
    (tmp_path / "later").mkdir()
    first = table("a,all,gender,male,female,sure,")
    second = table("b,all,gender,male,female,sure,", file="later/mine.csv")
    _, report = corrections.apply(labelled(a=0, b=0), f"{first},{second}", NOWHERE)
    assert report.files == {path: files.sha256(pathlib.Path(path)) for path in (first, second)}


@pytest.mark.parametrize(
    ("row", "other", "says"),
    [
        ("a,all,gender,male,female,sure,", "a,all,gender,male,male,sure,", "female"),
        ("a,all,gender,male,female,sure,", "a,normal,gender,male,male,sure,", "female"),
        ("a,all,age,under_30,60_and_over,sure,", "a_x_Asian_25,all,age,25,40,sure,", "60_and_over"),
        ("a,all,leave_out,no,no,sure,", "a,mask1,leave_out,,,sure,", "no"),
        ("a,all,leave_out,,,sure,", "a,normal,leave_out,,no,sure,", "yes"),
        ("a,all,mask,worn,incorrect,sure,", "a,mask1,mask,worn,worn,sure,", "incorrect"),
    ],
)
def test_a_contradiction_is_refused_and_names_both_places(table, row, other, says):
    first, second = table("b,all,age,20,30,sure,", row), table(other, file="later.csv")
    with pytest.raises(InputError) as error:
        corrections.apply(labelled(a=0, b=0), f"{first},{second}", NOWHERE)
    expected = f"{second} line 2: contradicts an earlier line, which says {says}: {first} line 3; take one of them out"
    assert str(error.value) == expected
    with pytest.raises(InputError, match=f"mine.csv line 3: contradicts .* {says}: .*mine.csv line 2"):
        corrections.apply(labelled(a=0, b=0), table(row, other), NOWHERE)


def test_rows_that_only_seem_to_contradict_are_taken(table):
    path = table(
        "a,all,gender,male,female,sure,", "a,all,gender,male,female,not sure,seen twice", "a,all,leave_out,,no,sure,",
        "a,all,mask,worn,worn,sure,", "a,all,mask,not_worn,incorrect,sure,",
        "a,incorrect_mask,mask,incorrect,worn,sure,", "b,mask1,leave_out,,,sure,", "b,mask1,leave_out,no,yes,sure,",
    )  # fmt: skip
    after, report = corrections.apply(labelled(a=0, b=0), path, NOWHERE)
    assert after["mask"].tolist() == [0, 0, 1, 1, 2] and after["gender"].tolist() == [1, 1, 1, 0, 0]
    assert report.confirmed == 2
    table("000010,all,gender,female,female,sure,")  # what outliers.csv is not sure of, somebody looked at
    assert corrections.apply(everybody(), f"sure,{path}", NOWHERE)[1].confirmed == 1
    _, report = corrections.apply(everybody(), f"all,{path}", NOWHERE)
    assert report.confirmed == 1 and "000010" not in report.people and "000357" in report.people
    table("001720,all,gender,female,female,sure,")  # of what it is sure, one of both is to be taken out
    with pytest.raises(InputError, match="line 2: contradicts .* says male: .*outliers.csv line 2;"):
        corrections.read_corrections(f"all,{path}")


def test_a_confirmed_label_changes_nothing_and_is_counted(table):
    path = table(
        "a,all,gender,male,male,sure,", "a,all,age,under_30,under_30,sure,", "a,normal,mask,not_worn,not_worn,sure,",
        "b,all,age,25,25,sure,", "b,all,leave_out,,no,sure,", "b,mask1,leave_out,no,no,sure,",
        "b,all,gender,female,female,sure,the folder was another one",
    )  # fmt: skip
    before = labelled(a=0, b=0)
    after, report = corrections.apply(before, path, NOWHERE)
    pd.testing.assert_frame_equal(as_labelled(after), before)  # the years, too
    assert report.confirmed == 6 and report.changed == {} and report.people == []
    assert report.skipped == ["b (not female)"]  # nobody has confirmed the label that is there now
    assert "mine.csv, 7 rows): nothing to change\n  6 labels confirmed\n" in str(report)
    again = shutil.copy(path, path.replace("mine", "again"))  # a second round's file holds the rows of the first
    after, both = corrections.apply(before, f"{path},{again}", NOWHERE)
    assert (both.rows, both.confirmed, both.skipped) == (14, 6, report.skipped)


def test_people_of_another_data_set_are_refused_where_a_file_was_named(table):
    path = table(
        "a,all,gender,male,female,sure,", "a,mask9,mask,worn,incorrect,sure,",
        *(f"x{n},all,gender,male,female,sure," for n in range(9)),
    )  # fmt: skip
    with pytest.raises(InputError) as error:
        corrections.apply(labelled(a=0), f"sure,{path}", NOWHERE)
    assert str(error.value) == (
        f"{path}: expected people and photographs of this data set, found 10 that are not in it: a mask9, x0, x1, x2, "
        "x3 and 5 more; is it the corrections of another data set? take these rows out, or the file out of RELABEL"
    )


def test_a_row_is_for_the_content_that_was_looked_at(table, tmp_path):
    before = photographs(tmp_path, incorrect_mask="bare", normal="slipped", mask1="worn", mask2="a wall")
    rows = (
        f"a,incorrect_mask,mask,incorrect,not_worn,sure,,{hash_of('bare')}",
        f"a,normal,mask,not_worn,incorrect,sure,,{hash_of('slipped')[:8].upper()}",
        f"a,mask1,mask,worn,worn,sure,,{hash_of('worn')[:20]}",
        f"a,mask2,leave_out,,,sure,,{hash_of('a wall')}",
    )
    path = table(*rows, fields=WITH_SHA256)
    after, report = corrections.apply(before, path, tmp_path)
    assert dict(zip(after["photograph"], after["mask"], strict=True)) == {"incorrect_mask": 2, "normal": 1, "mask1": 0}
    assert (report.confirmed, report.replaced) == (1, [])
    again = photographs(tmp_path, incorrect_mask="slipped", normal="bare", mask1="another", mask2="a face")
    after, report = corrections.apply(again, path, tmp_path)
    pd.testing.assert_frame_equal(as_labelled(after), again)
    assert report.replaced == ["a incorrect_mask", "a normal", "a mask1", "a mask2"] and report.confirmed == 0
    assert report.skipped == [] and "skipped 4: the file has another content: a incorr" in str(report)


def test_of_a_photograph_that_is_there_twice_the_row_is_for_one(table, tmp_path):
    before = photographs(tmp_path, mask1="worn", mask1__png="slipped", normal="bare")
    row = f"a,mask1,mask,worn,incorrect,sure,,{hash_of('slipped')}"
    path = table(row, f"a,mask1,mask,worn,worn,sure,,{hash_of('worn')}", fields=WITH_SHA256)
    after, report = corrections.apply(before, path, tmp_path)
    assert dict(zip(after["file"], after["mask"], strict=True)) == {"mask1.jpg": 0, "mask1.png": 1, "normal.jpg": 2}
    assert report.confirmed == 1 and report.changed == {"mask": 1}
    path = table(row, f"a,mask1,mask,worn,worn,sure,,{hash_of('slipped')[:9]}", fields=WITH_SHA256)
    with pytest.raises(InputError, match="line 3: contradicts .* says incorrect: .* line 2"):
        corrections.apply(before, path, tmp_path)


def test_only_files_that_such_rows_name_are_read(table, tmp_path):
    before = photographs(tmp_path, mask1="worn", normal="bare")
    (tmp_path / "a_male_Asian_25" / "normal.jpg").unlink()
    row = f"a,mask1,mask,worn,incorrect,sure,,{hash_of('worn')}"
    path = table(row, "a,normal,mask,not_worn,worn,sure,,", fields=WITH_SHA256)
    assert corrections.apply(before, path, tmp_path)[0]["mask"].tolist() == [1, 0]
    path = table("a,normal,mask,not_worn,worn,sure,,00000000", fields=WITH_SHA256)  # which cannot be read
    assert corrections.apply(before, path, tmp_path)[1].replaced == ["a normal"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,all,mask,worn,incorrect,sure,,01234567", "expected nothing in a row for all photographs, found '01234567'"),
        ("a,mask1,mask,worn,incorrect,sure,,0123456", "sha256: expected 8 to 64 hex digits, found '0123456'"),
        ("a,mask1,mask,worn,incorrect,sure,,0123456x", "sha256: expected 8 to 64 hex digits, found '0123456x'"),
    ],
)
def test_a_hash_that_cannot_be_one_is_refused(table, row, expected):
    with pytest.raises(InputError, match=f"mine.csv line 2: .*{expected}"):
        corrections.read_corrections(table(row, fields=WITH_SHA256))


def test_a_second_round_starts_from_the_first(table, tmp_path):
    first = table("a,all,gender,male,female,sure,", 'b_x_Asian_25,all,leave_out,,no,not sure,"says ""no"", twice"')
    people = pd.concat([everybody(), labelled(**dict.fromkeys("abcd", 0))], ignore_index=True)

    def named(relabel: str) -> set[str]:
        return set(people["person"][corrections.is_named(people, relabel)])

    assert named("none") == set()
    assert named(first) == {"a", "b"}
    assert named("sure") == {*SURE_MALE, *SURE_FEMALE, *SURE_EXCHANGED}
    assert named(f"all,{first}") >= {"a", *NOT_SURE_MALE, *SURE_MALE}
    rows = decisions.read_rows(pathlib.Path(first))
    assert rows[1]["note"] == 'says "no", twice' and rows[1]["correct"] == "no"
    new = dict(zip(corrections.COLUMNS, ("c", "mask1", "mask", "worn", "worn", "sure", "two\nlines"), strict=True))
    (tmp_path / "second.csv").write_text(corrections.to_csv([*rows, {**new, "sha256": hash_of("c")}]))
    second = str(tmp_path / "second.csv")
    nothing = {"sha256": ""}
    assert decisions.read_rows(pathlib.Path(second)) == [
        *(row | nothing for row in rows),
        {**new, "sha256": hash_of("c")},
    ]
    assert named(f"{first},{second}") == {"a", "b", "c"}  # a row in both is no contradiction
    assert corrections.to_csv([new]) == f'{WITH_SHA256}c,mask1,mask,worn,worn,sure,"two\nlines",\n'
    (tmp_path / "nobody.csv").write_text(corrections.to_csv([]))
    assert decisions.read_rows(tmp_path / "nobody.csv") == []
    assert corrections.apply(labelled(a=0), str(tmp_path / "nobody.csv"), NOWHERE)[1].rows == 0


def test_rows_apply_as_spreadsheets_save_them_and_are_refused_where_several_people_fit(table):
    apart = unicodedata.normalize("NFD", "가")
    before = labelled(**dict.fromkeys(["000020", "000007", apart, "good"], 0))
    path = table(
        "20,incorrect_mask,mask,incorrect,not_worn,sure,",
        " 7,ALL ,gender,male ,female,sure,",
        "가,Normal,gender,male,female,sure,",
    )
    _, report = corrections.apply(before, path, NOWHERE)
    assert report.people == sorted(["000020", "000007", apart]) and report.changed == {"mask": 1, "gender": 4}
    assert "4 names differ only in zeros in front" in str(report) and "'20' is '000020'" in str(report)
    assert corrections.is_named(before, path).tolist() == [True] * 9 + [False] * 3
    exactly = labelled(**dict.fromkeys(["000020", "000007", apart, "7"], 0))
    assert corrections.apply(exactly, path, NOWHERE)[1].people == sorted(["000020", "7", apart])
    several = labelled(**dict.fromkeys(["000020", "000007", apart, "0020"], 0))
    with pytest.raises(InputError, match="mine.csv: expected names that fit one.*'20' may be '000020' or '0020'"):
        corrections.apply(several, path, NOWHERE)


def test_a_table_of_another_data_set_gains_no_zeros():
    """A person 1720 of another data set is not 001720 of outliers.csv."""
    report = corrections.apply(labelled(**{"1720": 1}), "sure", NOWHERE)[1]
    assert report.people == [] and "001720" in report.unknown
