"""suspects.html in a real browser, as a file and served."""

import dataclasses
import io
import pathlib

import numpy as np
import pytest
from browser import DESK, PHONE, opened, reads_well
from PIL import Image
from playwright.sync_api import expect
from reviewing import EARLIER, EARLIER_LINE, HEADER, answers, current, press, serving, status

import dataset
from toolkit.label_errors import corrections, decisions
from toolkit.pages import suspects as suspects_page

LOADED = "performance.getEntriesByType('resource').map((one) => one.name)"


@pytest.fixture(scope="module")
def file(suspects, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "suspects.html"
    suspects_page.write(path, suspects, images, "28 photographs <i>", [EARLIER], "drawn")
    return path


@pytest.fixture(scope="module")
def many(thousands, images, tmp_path_factory):
    """Their page, made without the pictures: what counts here is what is in the rows."""
    path = tmp_path_factory.mktemp("many") / "suspects.html"
    with pytest.MonkeyPatch.context() as patch:
        one = Image.new("RGB", (672, 128))
        patch.setattr(suspects_page, "_picture", lambda *_: one)
        suspects_page.write(path, thousands, images, "", [], "many")
    return path


@pytest.mark.parametrize(
    ("served", "window", "scheme"),
    [(False, PHONE, "dark"), (True, DESK, "light")],
    ids=["a file on a phone in the dark", "served to a desk by day"],
)
def test_the_page_reads_well_as_a_file_and_served(browser, suspects, images, file, tmp_path, served, window, scheme):
    with serving(tmp_path / "corrections.csv", suspects, images) as server:
        place = server.address if served else file
        with opened(browser, place, viewport=window, color_scheme=scheme) as shown:
            status(shown, "0 of 4 decided: 0 yes, 0 no, 0 ?; expected errors among those not yet decided: 2.4")
            for number, row in enumerate(shown.locator("article").all()):
                row.scroll_into_view_if_needed()
                expect(row.get_by_role("button")).to_have_count(3)
                for image in row.locator("img").all():  # loaded, when its picture is there
                    expect(image).to_have_js_property("complete", True)
                told = row.inner_text()
                suspect = suspects[number]
                for words in (suspect.folder, suspect.label, suspect.suggestion, suspect.evidence, "% that a label"):
                    assert words in told
                assert row.locator("li p").all_text_contents() == [words for _, words in suspect.photographs]
            press(shown, "y")
            status(shown, "1 of 4 decided: 1 yes")
            reads_well(shown)
            assert shown.get_by_role("article", name="1 900001").count() == 1
            assert shown.locator("main i, header i, main b").count() == 0


def test_keys_decide_move_and_undo(browser, file):
    with opened(browser, file, viewport=DESK) as shown:
        assert current(shown) == 0
        press(shown, "y n")
        assert current(shown) == 2 and answers(shown) == ["y", "n", None, None]
        status(shown, "2 of 4 decided: 1 yes, 1 no, 0 ?; expected errors among those not yet decided: 0.8")
        press(shown, "ArrowDown j ArrowDown")  # no further than the last
        assert current(shown) == 3
        press(shown, "?")  # and on to the next that is open, from the start again
        assert current(shown) == 2 and answers(shown) == ["y", "n", None, "?"]
        press(shown, "ArrowUp k k")
        assert current(shown) == 0
        press(shown, "N")  # another mind, and capitals
        assert current(shown) == 2 and answers(shown)[0] == "n"
        press(shown, "y")
        assert None not in answers(shown)
        status(shown, "4 of 4 decided: 1 yes, 2 no, 1 ?; expected errors among those not yet decided: 0.0")
        press(shown, "u")
        assert current(shown) == 2 and answers(shown) == ["n", "n", None, "?"]
        press(shown, "Control+z u")
        assert current(shown) == 3 and answers(shown) == ["y", "n", None, None]
        press(shown, "u u u")
        assert current(shown) == 0 and answers(shown) == [None] * 4
        assert shown.locator("#undo").is_disabled()


def test_suspects_of_one_kind_are_shown_alone(browser, file):
    with opened(browser, file, viewport=DESK) as shown:
        kind, rows = shown.get_by_label("Show", exact=True), shown.locator("article:visible")
        assert kind.locator("option").all_inner_texts() == ["all kinds", "gender (3)", "mask (1)"]
        kind.select_option("mask")
        assert rows.count() == 1 and current(shown) == 1
        press(shown, "ArrowDown n")
        assert answers(shown) == [None, "n", None, None] and current(shown) == 1
        kind.select_option("gender")
        assert rows.count() == 3 and current(shown) == 0
        press(shown, "j y")  # past the one that is not shown
        assert answers(shown) == [None, "n", "y", None] and current(shown) == 3
        press(shown, "u u")  # back to one that is not shown
        assert answers(shown) == [None] * 4 and current(shown) == 1 and rows.count() == 4


def test_keys_with_another_meaning_do_nothing(browser, file):
    with opened(browser, file, viewport=DESK) as shown:
        press(shown, "Control+y Alt+n Meta+y")
        shown.evaluate("document.querySelector('h2').append(document.createElement('input'))")
        shown.locator("h2 input").focus()
        press(shown, "y n j u")
        assert shown.locator("h2 input").input_value() == "ynju" and answers(shown) == [None] * 4
        shown.locator("h2 input").evaluate("input => input.remove()")
        send = "([key, code, repeat]) => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, code, repeat, bubbles: true}))"  # noqa: E501
        shown.evaluate(send, ["y", "KeyY", True])  # held down too long
        assert answers(shown) == [None] * 4 and current(shown) == 0
        shown.evaluate(send, ["ㅛ", "KeyY", False])  # a keyboard that writes Hangul
        assert answers(shown) == ["y", None, None, None]


def test_buttons_work_by_mouse_and_by_keyboard(browser, file):
    with opened(browser, file, viewport=DESK) as shown:
        second = shown.locator("article").nth(1)
        second.get_by_role("button", name="Folder is right").click()
        assert answers(shown) == [None, "n", None, None] and current(shown) == 2
        press(shown, "Tab Tab Space")  # from the row into its buttons
        assert answers(shown) == [None, "n", "n", None]
        assert second.get_by_role("button", pressed=True).inner_text() == "n Folder is right"
        second.get_by_role("button", pressed=True).click()  # once more takes it back
        assert answers(shown) == [None, None, "n", None]
        shown.get_by_role("button", name="Undo").click()
        assert answers(shown) == [None, "n", "n", None] and current(shown) == 1


def test_the_browser_keeps_decisions_for_a_page_that_is_written_again(browser, suspects, images, tmp_path):
    path = tmp_path / "suspects.html"
    suspects_page.write(path, suspects, images, "", [], "one's data")
    with opened(browser, path, viewport=DESK) as shown:
        press(shown, "y n ?")
        shown.reload()
        assert answers(shown) == ["y", "n", "?", None] and current(shown) == 3
        suspects_page.write(path, [suspects[3], suspects[1]], images, "", [], "one's data")
        shown.reload()
        assert answers(shown) == [None, "n"]
        press(shown, "y")
        suspects_page.write(path, suspects, images, "", [], "one's data")
        shown.reload()  # the browser has kept those that were not on the page
        assert answers(shown) == ["y", "n", "?", "y"]
        first = decisions.rows_of_answer(suspects[0], "y")[0] | {"field": "age", "given": "40", "correct": "under_30"}
        suspects_page.write(
            path, [dataclasses.replace(suspects[0], corrections=[first]), *suspects[1:]], images, "", [], "one's data"
        )
        shown.reload()
        assert answers(shown) == [None, "n", "?", "y"]  # nobody agreed to this
        suspects_page.write(path, suspects, images, "", [], "another's")
        shown.reload()
        assert answers(shown) == [None] * 4
        press(shown, "n k")
        shown.locator("article").first.get_by_role("button", pressed=True).click()
        shown.reload()
        assert answers(shown) == [None] * 4  # and that it was taken back


def test_the_saved_file_is_a_table_of_corrections(browser, suspects, images, file, tmp_path):
    with opened(browser, file, viewport=DESK) as shown:
        press(shown, "y n j ?")
        with shown.expect_download() as download:
            shown.get_by_role("button", name="Save corrections.csv").click()
        assert download.value.suggested_filename == "corrections.csv"
        there = file.with_name("corrections.csv")
        command = f"SM_CHANNEL_TRAIN={images} SM_MODEL_DIR=runs RELABEL=sure,{there} python train.py"
        assert f"Move it to {there}" in (said := shown.locator("#saved").inner_text()) and said.endswith(command)
        assert command in shown.locator("header").inner_text()
        saved = tmp_path / "corrections.csv"
        download.value.save_as(saved)
    text = saved.read_bytes().decode()
    first, second = suspects[:2]
    of_first = first.corrections[0]
    name = '"x<i>""&\'<script>"'
    assert text == HEADER + EARLIER_LINE + (
        f"{first.person},all,gender,{of_first['given']},{of_first['correct']},sure,,\n"
        f"{second.folder},incorrect_mask,mask,incorrect,incorrect,sure,looked at: the folder is right,\n"
        f"{second.folder},normal,mask,not_worn,not_worn,sure,looked at: the folder is right,\n"
        f"{name},all,gender,male,male,not sure,looked at: cannot tell,\n"
    )
    saved.write_text(text.replace(EARLIER_LINE, ""))  # which is of another data set
    before, _ = dataset.read_faces(images)
    after, report = corrections.apply(before, str(saved), images)
    assert report.people == [first.person] and report.changed == {"gender": 7} and report.skipped == []
    assert set(after["gender"][after["person"] == first.person]) == {["male", "female"].index(of_first["correct"])}


def test_a_browser_without_storage_is_reported(browser, file):
    with opened(browser, file, viewport=DESK) as shown:
        shown.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('off'); }})")
        shown.reload()
        assert "save corrections.csv before you close" in shown.get_by_role("alert").inner_text()
        press(shown, "y")
        assert answers(shown) == ["y", None, None, None]
        asked = []
        shown.on("dialog", lambda dialog: asked.append(dialog.type) or dialog.accept())
        shown.reload()
        assert asked == ["beforeunload"]
        shown.reload()  # nothing is lost
        assert asked == ["beforeunload"]


def test_two_windows_save_the_decisions_of_both(browser, suspects, images, tmp_path):
    path = tmp_path / "suspects.html"
    suspects_page.write(path, suspects, images, "", [], "two windows")
    context = browser.new_context(viewport=DESK)
    first, second = context.new_page(), context.new_page()
    for window in (first, second):
        window.goto(path.as_uri())
    press(first, "y")
    press(second, "j n")
    with first.expect_download() as download:
        first.get_by_role("button", name="Save corrections.csv").click()
    saved = [*decisions.rows_of_answer(suspects[0], "y"), *decisions.rows_of_answer(suspects[1], "n")]
    assert pathlib.Path(download.value.path()).read_text() == corrections.to_csv(saved)
    context.close()


def test_after_scrolling_keys_decide_on_a_row_in_sight(browser, many):
    with opened(browser, many, viewport=DESK) as shown:
        shown.evaluate("scrollTo(0, 30000)")
        expect(shown.locator("article[aria-current=true] h3 span")).not_to_have_text("1")
        seen = current(shown)
        assert seen > 50
        press(shown, "y")
        assert [i for i, one in enumerate(answers(shown)) if one] == [seen]
        assert current(shown) == seen + 1
        key = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'n', bubbles: true}))"
        shown.evaluate(f"scrollTo(0, 0), {key}")  # before any other row can be the current one
        assert answers(shown).count("n") == 0 and current(shown) == seen + 1
        shown.reload()
        assert current(shown) == 0


def test_of_thousands_only_rows_near_the_window_are_filled(browser, thousands, images, many, tmp_path):
    with serving(tmp_path / "corrections.csv", thousands, images) as server:
        for place in (many, server.address):
            with opened(browser, place, viewport=DESK) as shown:
                status(shown, "0 of 2,700 decided")
                filled, pictures = shown.locator("article[data-filled]"), shown.locator("img")
                expect(shown.locator("article").nth(3).locator("img")).to_have_count(7)
                assert shown.locator("article").count() == 2700
                assert 3 < filled.count() < 20 and pictures.count() == 7 * filled.count()
                shown.evaluate("scrollTo(0, 1e9)")
                expect(shown.locator("article").last.locator("img")).to_have_count(7)
                assert filled.count() < 60
                assert shown.locator("article").nth(1000).locator("img").count() == 0
                shown.evaluate("scrollTo(0, 0)")
                expect(shown.locator("article[aria-current=true] h3 span")).to_have_text("1")
                press(shown, "y")
                assert current(shown) == 1
                asked = [name for name in shown.evaluate(LOADED) if "photographs" in name]
            assert (3 < len(set(asked)) == len(asked) < 60) if isinstance(place, str) else not asked


def test_photographs_are_in_their_cells_and_an_unreadable_one_leaves_its_cell_empty(suspects, images):
    with Image.open(io.BytesIO(suspects_page.photographs(suspects, images)(3))) as row:
        assert row.size == (7 * 192, 256)
        pixels = np.asarray(row).astype(int)
    place = [path.endswith("/mask2.jpg") for path, _ in suspects[3].photographs].index(True)
    cells = pixels.reshape(256, 7, 192, 3).transpose(1, 0, 2, 3)[:, 8:-8, 8:-8]
    assert np.abs(cells[place] - 128).max() < 8
    assert all(cell.std() > 10 for number, cell in enumerate(cells) if number != place)
