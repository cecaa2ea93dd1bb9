"""Decisions as rows of a table of corrections."""

import pytest
from reviewing import EARLIER, HEADER, correction

from toolkit.label_errors import corrections, decisions
from toolkit.label_errors.ranking import Suspect
from toolkit.system.console import InputError


def test_answers_are_found_in_the_rows_that_hold_them(suspects):
    out = Suspect("b", "b", "", (), "", "", 0.5, [], [correction("b", "mask1", "leave_out", "no", "yes")])
    assert decisions.rows_of_answer(out, "y") == out.corrections
    (row,) = decisions.rows_of_answer(out, "n")
    assert (row["given"], row["correct"], row["certainty"]) == ("no", "no", "sure")
    suspects = [*suspects, out]
    table = [EARLIER] + [
        row for one, answer in zip(suspects, "yn?ny", strict=True) for row in decisions.rows_of_answer(one, answer)
    ]
    answers, others = decisions.match_answers(table, suspects)
    assert [answer for answer, _ in answers.values()] == list("yn?ny") and others == [EARLIER]
    assert [row for _, rows in answers.values() for row in rows] == table[1:]
    half = table[3]  # of an answer
    assert decisions.match_answers([*table[:2], half], suspects) == ({0: ("y", table[1:2])}, [EARLIER, half])
    assert decisions.hash_of_list(suspects) != decisions.hash_of_list(suspects[::-1])


def test_what_others_change_in_the_file_stays_changed(suspects, tmp_path, capsys):
    """The file is read again before each write. Without that, added rows were lost and removed rows came back."""
    path = tmp_path / "corrections.csv"
    decided = decisions.Decisions(path, suspects, [EARLIER])
    by_hand = correction("someone", "mask1", "mask", "worn", "incorrect")
    path.write_text(corrections.to_csv([by_hand]))
    assert "1 rows added, 0 removed" in decided.decide(0, "y")
    first, second, third = (decisions.rows_of_answer(suspects[number], "y") for number in (0, 1, 3))
    assert path.read_text() == corrections.to_csv([EARLIER, by_hand, *first])
    assert decided.decide(1, "y") == ""
    path.write_text(corrections.to_csv([EARLIER, *second, *third]))  # takes two out, and decides on the fourth
    assert "1 rows added, 2 removed" in decided.decide(2, "n")
    assert decided.answers == {1: "y", 2: "n", 3: "y"} and "was changed meanwhile" in capsys.readouterr().out
    rows = [EARLIER, *second, *decisions.rows_of_answer(suspects[2], "n"), *third]
    assert path.read_text() == corrections.to_csv(rows)
    path.write_text("half a ta")  # it is being edited
    with pytest.raises(InputError, match="expected the columns person"):
        decided.decide(2, None)
    path.unlink()
    assert decided.decide(0, "?") == ""
    assert path.read_text() == corrections.to_csv([EARLIER, *decisions.rows_of_answer(suspects[0], "?"), *rows[1:]])


def test_a_table_with_a_column_that_would_be_lost_is_refused(suspects, tmp_path):
    path = tmp_path / "corrections.csv"
    path.write_text(HEADER.replace("note", "note,colour"))
    with pytest.raises(InputError, match="found colour too, which would be lost"):
        decisions.Decisions(path, suspects)


def test_answers_are_found_where_a_spreadsheet_dropped_the_zeros_of_an_id():
    suspect = Suspect(
        "000020_x", "000020", "", (), "", "", 0.5, [], [correction("000020", "all", "gender", "male", "female")]
    )
    saved = [row | {"person": "20"} for row in suspect.corrections]
    assert decisions.match_answers(saved, [suspect]) == ({0: ("y", suspect.corrections)}, [])
