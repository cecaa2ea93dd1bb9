"""Deciding on suspects: in a real browser, as a file and served, and what the decisions become."""

import contextlib
import dataclasses
import http.client
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from browser import DESK, PHONE, opened, reads_well
from conftest import ROOT
from PIL import Image
from playwright.sync_api import expect

import dataset
from toolkit.label_errors import corrections, decisions
from toolkit.label_errors.ranking import Suspect
from toolkit.pages import suspects as page
from toolkit.system import files
from toolkit.system.console import InputError

HOSTILE = """x<i>"&'<script>_male_Drawn_40"""
OTHER = {"male": "female", "female": "male"}
LOADED = "performance.getEntriesByType('resource').map((one) => one.name)"
HEAD = "person,photograph,field,given,correct,certainty,note,sha256\n"
EARLIER = {"person": "000001", "photograph": "all", "field": "gender", "given": "male", "correct": "female",
           "certainty": "sure", "note": 'said "no", twice', "sha256": "ab12"}  # fmt: skip
CARRIED = '000001,all,gender,male,female,sure,"said ""no"", twice",ab12\n'


@pytest.fixture(scope="module")
def images(drawn, tmp_path_factory):
    """Four people, of whom one has a name that a page must not believe and a photograph that cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    *three, last = sorted(drawn.train.iterdir())[:4]
    for person in three:
        shutil.copytree(person, folder / person.name)
    shutil.copytree(last, folder / HOSTILE)
    (folder / HOSTILE / "mask2.jpg").write_bytes(b"no photograph")
    return folder


@pytest.fixture(scope="module")
def found(images) -> list[Suspect]:
    """One whose gender is suspected, one whose photographs are exchanged, and two of wrong genders again."""
    table, _ = dataset.read_faces(images)
    suspects = []
    for number, (folder, person) in enumerate(table.groupby("folder", observed=True)):
        gender = folder.split("_")[1]
        rows = [_row(person["person"].iloc[0], "all", "gender", gender, OTHER[gender])]
        if number == 1:
            rows = [
                _row(folder, "incorrect_mask", "mask", "incorrect", "not_worn"),
                _row(folder, "normal", "mask", "not_worn", "incorrect"),
            ]
        photographs = [(f"{folder}/{file}", f"{file.split('.')[0]}, {gender}") for file in person["file"]]
        suspects.append(
            Suspect(folder, str(person["person"].iloc[0]), gender, f"<b>{OTHER[gender]}", "so it is & no </script> way",
                    0.9 - number / 5, photographs, rows)
        )  # fmt: skip
    return suspects


def _row(*cells: str) -> dict[str, str]:
    return dict(zip(corrections.COLUMNS, [*map(str, cells), "sure", ""], strict=True))


@pytest.fixture(scope="module")
def file(found, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "suspects.html"
    page.write(path, found, images, "28 photographs <i>", [EARLIER], "drawn")
    return path


@contextlib.contextmanager
def serving(path, found, images, kept=()):
    """A server of this process."""
    decided = decisions.Decisions(path, found, kept)
    shown = page.served(path, found, "28 photographs <i>")
    with decisions.Server(decided, shown, page.photographs(found, images), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            decided.close()


def press(shown, keys: str) -> None:
    for key in keys.split():
        shown.keyboard.press(key)


def current(shown) -> int:
    """The row on which keys decide, which must be seen."""
    row = shown.locator("article[aria-current=true]")
    assert row.count() == 1
    box, bar = row.bounding_box(), shown.locator("#progress").bounding_box()
    middle = box["y"] + box["height"] / 2
    assert bar["y"] + bar["height"] < middle < shown.viewport_size["height"]
    return int(row.locator("h3 span").inner_text()) - 1


def answers(shown) -> list[str | None]:
    return shown.evaluate("[...document.querySelectorAll('article')].map((row) => row.dataset.answer ?? null)")


def status(shown, text: str) -> None:
    expect(shown.locator("#status")).to_contain_text(text)


@pytest.mark.parametrize(
    ("served", "window", "scheme"),
    [(False, PHONE, "dark"), (True, DESK, "light")],
    ids=["a file on a phone in the dark", "served to a desk by day"],
)
def test_the_page_reads_well_as_a_file_and_served(browser, found, images, file, tmp_path, served, window, scheme):
    with serving(tmp_path / "corrections.csv", found, images) as server:
        place = server.address if served else file
        with opened(browser, place, viewport=window, color_scheme=scheme) as shown:
            status(shown, "0 of 4 decided: 0 yes, 0 no, 0 ?; expected errors among those not yet decided: 2.4")
            for number, row in enumerate(shown.locator("article").all()):
                row.scroll_into_view_if_needed()
                expect(row.get_by_role("button")).to_have_count(3)
                for image in row.locator("img").all():  # loaded, when its picture is there
                    expect(image).to_have_js_property("complete", True)
                told = row.inner_text()
                suspect = found[number]
                for words in (suspect.folder, suspect.says, suspect.suggests, suspect.why, "% that a label"):
                    assert words in told
                assert row.locator("li p").all_text_contents() == [words for _, words in suspect.photographs]
            press(shown, "y")
            status(shown, "1 of 4 decided: 1 yes")
            reads_well(shown)
            assert shown.get_by_role("article", name="1 900001").count() == 1
            assert shown.locator("main i, header i, main b").count() == 0


def test_keys_decide_and_move_and_take_back(browser, file):
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


def test_keys_do_nothing_where_they_mean_something_else(browser, file):
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


def test_buttons_decide_by_mouse_and_by_keyboard(browser, file):
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


def test_the_file_keeps_decisions_in_the_browser_for_a_page_that_is_made_anew(browser, found, images, tmp_path):
    path = tmp_path / "suspects.html"
    page.write(path, found, images, "", [], "one's data")
    with opened(browser, path, viewport=DESK) as shown:
        press(shown, "y n ?")
        shown.reload()
        assert answers(shown) == ["y", "n", "?", None] and current(shown) == 3
        page.write(path, [found[3], found[1]], images, "", [], "one's data")
        shown.reload()
        assert answers(shown) == [None, "n"]
        press(shown, "y")
        page.write(path, found, images, "", [], "one's data")  # those that were not on the page were not forgotten
        shown.reload()
        assert answers(shown) == ["y", "n", "?", "y"]
        first = decisions.rows(found[0], "y")[0] | {"field": "age", "given": "40", "correct": "under_30"}
        page.write(path, [dataclasses.replace(found[0], corrections=[first]), *found[1:]], images, "", [], "one's data")
        shown.reload()
        assert answers(shown) == [None, "n", "?", "y"]  # nobody agreed to this
        page.write(path, found, images, "", [], "another's")
        shown.reload()
        assert answers(shown) == [None] * 4
        press(shown, "n k")
        shown.locator("article").first.get_by_role("button", pressed=True).click()
        shown.reload()
        assert answers(shown) == [None] * 4  # and that it was taken back


def test_what_is_saved_is_a_table_of_corrections(browser, found, images, file, tmp_path):
    with opened(browser, file, viewport=DESK) as shown:
        press(shown, "y n j ?")
        with shown.expect_download() as download:
            shown.get_by_role("button", name="Save corrections.csv").click()
        assert download.value.suggested_filename == "corrections.csv"
        assert "RELABEL=sure,corrections.csv python train.py" in shown.locator("#saved").inner_text()
        saved = tmp_path / "corrections.csv"
        download.value.save_as(saved)
    text = saved.read_bytes().decode()
    first, second = found[:2]
    of_first = first.corrections[0]
    name = '"x<i>""&\'<script>"'
    assert text == HEAD + CARRIED + (
        f"{first.person},all,gender,{of_first['given']},{of_first['correct']},sure,,\n"
        f"{second.folder},incorrect_mask,mask,incorrect,incorrect,sure,looked at: the folder is right,\n"
        f"{second.folder},normal,mask,not_worn,not_worn,sure,looked at: the folder is right,\n"
        f"{name},all,gender,male,male,not sure,looked at: cannot tell,\n"
    )
    saved.write_text(text.replace(CARRIED, ""))  # which is of another data set
    before, _ = dataset.read_faces(images)
    after, report = corrections.apply(before, str(saved), images)
    assert report.people == [first.person] and report.changed == {"gender": 7} and report.skipped == []
    assert set(after["gender"][after["person"] == first.person]) == {["male", "female"].index(of_first["correct"])}


def test_a_browser_that_keeps_nothing_is_told_of(browser, file):
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


def test_who_scrolls_away_decides_on_what_is_seen(browser, found, images, many):
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


@pytest.fixture(scope="module")
def several(found) -> list[Suspect]:
    """2,700 suspects, of the photographs of four."""
    numbers = range(2700 // len(found))
    return [
        Suspect(f"{number}/{one.folder}", one.person, one.says, one.suggests, one.why, one.probability,
                one.photographs, [row | {"person": f"{number}/{one.folder}"} for row in one.corrections])
        for number in numbers for one in found
    ]  # fmt: skip


@pytest.fixture(scope="module")
def many(several, images, tmp_path_factory):
    """Their page, made without the pictures: what counts here is what is in the rows."""
    path = tmp_path_factory.mktemp("many") / "suspects.html"
    with pytest.MonkeyPatch.context() as patch:
        one = Image.new("RGB", (672, 128))
        patch.setattr(page, "_row", lambda *_: one)
        page.write(path, several, images, "", [], "many")
    return path


def test_of_thousands_only_what_is_near_the_window_is_made(browser, several, images, many, tmp_path):
    with serving(tmp_path / "corrections.csv", several, images) as server:
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


def test_a_decision_is_on_the_disk_before_the_page_says_so(browser, found, images, tmp_path):
    path = tmp_path / "corrections.csv"
    with serving(path, found, images, [EARLIER]) as server, opened(browser, server.address, viewport=DESK) as shown:
        status(shown, "0 of 4 decided")
        with server.decisions._lock:  # a disk that takes its time
            press(shown, "y")
            assert current(shown) == 1
            assert shown.locator("article").first.locator(".answer").inner_text().endswith("being kept")
            status(shown, "0 of 4 decided")
            assert not path.exists()
        status(shown, "1 of 4 decided: 1 yes")
        first, second = (
            corrections.as_csv(decisions.rows(found[i], answer), head=False) for i, answer in ((0, "y"), (1, "?"))
        )
        assert path.read_text() == HEAD + CARRIED + first
        press(shown, "?")
        status(shown, "2 of 4 decided")
        assert path.read_text() == HEAD + CARRIED + first + second
        press(shown, "k k u")
        status(shown, "1 of 4 decided")
        assert path.read_text() == HEAD + CARRIED + first
        press(shown, "j y")  # of another row: what was written stays
        status(shown, "2 of 4 decided: 2 yes")
        shown.reload()
        status(shown, "2 of 4 decided: 2 yes")
        assert answers(shown) == ["y", None, "y", None] and current(shown) == 1


def test_a_server_that_starts_anew_goes_on_from_the_file(browser, found, images, tmp_path):
    path = tmp_path / "corrections.csv"
    own = _row("someone", "mask1", "mask", "worn", "incorrect") | {"note": "by hand"}
    changed = decisions.rows(found[3], "y")[0] | {"given": "female", "correct": "male"}
    second, third = (
        decisions.rows(found[1], "n"),
        [decisions.rows(found[2], "?")[0] | {"note": "too dark", "sha256": "cd34"}],
    )
    path.write_text(corrections.as_csv([own, *second, changed, *third]))
    earlier = decisions.rows(found[0], "y")  # and taken back since, as the file says
    with serving(path, found, images, earlier) as server, opened(browser, server.address, viewport=DESK) as shown:
        status(shown, "2 of 4 decided: 0 yes, 1 no, 1 ?")
        press(shown, "y")
        status(shown, "3 of 4 decided")
        assert path.read_text() == corrections.as_csv([own, changed, *earlier, *second, *third])
        press(shown, "y")
        status(shown, "4 of 4 decided")  # what was said of that before would contradict it
        last = decisions.rows(found[3], "y")
        assert path.read_text() == corrections.as_csv([own, *earlier, *second, *third, *last])
        press(shown, "u")
        status(shown, "3 of 4 decided")
    assert path.read_text() == corrections.as_csv([own, changed, *earlier, *second, *third])


def test_what_could_not_be_written_does_not_count(browser, found, images, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    shown = browser.new_page(viewport=DESK)
    with serving(folder / "corrections.csv", found, images) as server:
        shown.goto(server.address)
        status(shown, "0 of 4 decided")
        press(shown, "y")
        status(shown, "1 of 4 decided")
        shutil.rmtree(folder)
        press(shown, "n")
        alert = shown.get_by_role("alert")
        expect(alert).to_contain_text(f"Not kept: the last decision on {found[1].folder}: ")
        expect(alert).to_contain_text("cannot be written: No such file or directory")
        assert answers(shown) == ["y", None, None, None] and server.decisions.answers == {0: "y"}
        status(shown, "1 of 4 decided")
        folder.mkdir()
        press(shown, "u")  # the last that was kept
        status(shown, "0 of 4 decided")
        assert decisions.read(folder / "corrections.csv") == []
        press(shown, "y")
        status(shown, "1 of 4 decided")
        assert alert.is_visible()  # that of the second is still not kept
        press(shown, "n")
        expect(alert).to_be_hidden()
        status(shown, "2 of 4 decided: 1 yes, 1 no")
        press(shown, "u")
        status(shown, "1 of 4 decided: 1 yes")
    shown.keyboard.press("y")
    expect(alert).to_contain_text("the server has ended")
    press(shown, "y " * 9)  # until none is left of the connections that a browser keeps open
    expect(alert).to_contain_text("is suspects.py still running?")
    assert alert.bounding_box()["y"] < 200 and answers(shown) == ["y", None, None, None]
    shown.close()


def test_what_fails_takes_back_no_later_answer(browser, found, images, tmp_path, monkeypatch):
    shown = browser.new_page(viewport=DESK)
    with serving(tmp_path / "corrections.csv", found, images) as server:
        put, waiting, asked = server.decisions.put, threading.Event(), []

        def first_fails(number, answer):
            asked.append(answer)
            assert waiting.wait(10)
            if len(asked) == 1:
                raise InputError("the disk is full")
            put(number, answer)

        monkeypatch.setattr(server.decisions, "put", first_fails)
        shown.goto(server.address)
        status(shown, "0 of 4")
        press(shown, "y k n")
        assert answers(shown)[0] == "n"
        waiting.set()
        status(shown, "1 of 4 decided: 0 yes, 1 no")
        assert answers(shown)[0] == "n" and asked == ["y", "n"]
    shown.close()


def asked(server, method="POST", path="decisions", body=None, **headers) -> tuple[int, bytes]:
    host = f"127.0.0.1:{server.server_port}"
    sent = {"number": 0, "answer": "y", "edition": server.edition} if body is None else body
    content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    headers = {"Host": host, "Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    connection = http.client.HTTPConnection(host, timeout=10)
    path = path if path.startswith("/") else server.folder + path
    connection.request(method, path, content if method == "POST" else None, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_only_its_own_page_on_this_machine_is_answered(found, images, tmp_path):
    with serving(tmp_path / "corrections.csv", found, images) as server:
        port = server.server_port
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
            assert asked(server, "GET", "", Host=host)[0] == 403, host
            assert asked(server, Host=host)[0] == 403, host
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"):
            assert asked(server, Origin=origin)[0] == 403, origin
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert asked(server, Content_Type=kind)[0] == 415, kind
        assert asked(server, body=b" " * 5000)[0] == 413
        assert asked(server, Content_Length="-1")[0] == 413
        for path in ("/", "/decisions", "/photographs/0.jpg", "/x/decisions"):  # who does not know the address
            assert asked(server, "GET", path)[0] == asked(server, path=path)[0] == 404, path
        assert asked(server, path="")[0] == 404
        whole = {"number": 0, "answer": "y", "edition": server.edition}
        for change in ({"number": 4}, {"number": -1}, {"number": True}, {"number": "0"}, {"answer": "x"}):
            assert asked(server, body=whole | change)[0] == 400, change
        for body in (b"", b"[]", b"\xff", b"{}", b"[" * 900):
            assert asked(server, body=body)[0] == 400, body
        assert asked(server, body=whole | {"edition": "of an earlier list"})[0] == 409
        for path in ("photographs/4.jpg", "photographs/-1.jpg", "photographs/../../etc/passwd", "index.html",
                     "photographs/%2e%2e/0.jpg", "corrections.csv", "photographs/0.jpg/../1.jpg"):  # fmt: skip
            assert asked(server, "GET", path)[0] == 404, path
        assert server.decisions.answers == {} and not server.decisions.path.exists()
        assert asked(server, Host=f"localhost:{port}", Origin=f"http://localhost:{port}") == (200, b"{}")
        assert asked(server, "GET") == (200, b'{"0": "y"}')


def test_who_goes_away_is_no_news_and_a_second_server_is_refused_in_a_line(found, images, tmp_path, capsys):
    path = tmp_path / "corrections.csv"
    with serving(path, found, images) as server:
        for _ in range(3):  # asks for a picture, and is gone with a reset before it comes
            with socket.create_connection(("127.0.0.1", server.server_port)) as gone:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                head = f"GET {server.folder}photographs/0.jpg HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n"
                gone.sendall(head.encode() * 20)
        assert asked(server) == (200, b"{}")
        with files.locked(tmp_path):  # somebody else's script, which only writes for a moment
            pass
    assert capsys.readouterr().err == ""
    with files.locked(tmp_path, name=decisions.LOCK), pytest.raises(InputError, match="another suspects.py serves"):
        decisions.serve(path, found, [], b"", page.photographs(found, images), 0)


def test_two_windows_save_what_either_decided(browser, found, images, tmp_path):
    path = tmp_path / "suspects.html"
    page.write(path, found, images, "", [], "two windows")
    context = browser.new_context(viewport=DESK)
    first, second = context.new_page(), context.new_page()
    for window in (first, second):
        window.goto(path.as_uri())
    press(first, "y")
    press(second, "j n")
    with first.expect_download() as download:
        first.get_by_role("button", name="Save corrections.csv").click()
    saved = [*decisions.rows(found[0], "y"), *decisions.rows(found[1], "n")]
    assert pathlib.Path(download.value.path()).read_text() == corrections.as_csv(saved)
    context.close()


def test_decisions_of_one_instant_are_all_kept(several, images, tmp_path):
    with serving(tmp_path / "corrections.csv", several, images) as server, ThreadPoolExecutor(8) as threads:
        bodies = [{"number": number, "answer": "y", "edition": server.edition} for number in range(0, 96, 4)]
        assert {status for status, _ in threads.map(lambda body: asked(server, body=body), bodies)} == {200}
        assert len(decisions.read(server.decisions.path)) == len(bodies)


def test_photographs_stand_in_their_cells_and_leave_what_cannot_be_read_empty(found, images):
    with Image.open(io.BytesIO(page.photographs(found, images)(3))) as row:
        assert row.size == (7 * 192, 256)
        pixels = np.asarray(row).astype(int)
    place = [path.endswith("/mask2.jpg") for path, _ in found[3].photographs].index(True)
    cells = pixels.reshape(256, 7, 192, 3).transpose(1, 0, 2, 3)[:, 8:-8, 8:-8]
    assert np.abs(cells[place] - 128).max() < 8
    assert all(cell.std() > 10 for number, cell in enumerate(cells) if number != place)


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_ends_the_server_and_nothing_is_lost(number, ends, tmp_path):
    code = """if True:
        import pathlib, sys
        from toolkit.system import console
        from toolkit.label_errors import decisions
        from toolkit.label_errors.ranking import Suspect
        one = Suspect("a", "a", "", "", "", 0.5, [], [{"person": "a", "field": "gender", "given": "male"}])
        console.run(lambda argv: decisions.serve(pathlib.Path(argv[0]), [one, one], [], b"", None, 0))
    """
    path = tmp_path / "corrections.csv"
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    )  # fmt: skip
    address = next(word for word in process.stdout.readline().split() if word.startswith("http"))
    place = urllib.parse.urlsplit(address)
    one = Suspect("a", "a", "", "", "", 0.5, [], [{"person": "a", "field": "gender", "given": "male"}])
    body = json.dumps({"number": 1, "answer": "n", "edition": decisions.edition([one, one])})
    connection = http.client.HTTPConnection(place.netloc)
    connection.request("POST", f"{place.path}decisions", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200  # and the connection stays open, as a browser's does
    assert sorted(os.listdir(tmp_path)) == [".suspects.lock", "corrections.csv"]
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == ends and "Traceback" not in err
    assert ("1 of 2 decided" in out and str(path) in out) == (ends == 0)
    assert os.listdir(tmp_path) == ["corrections.csv"] and len(decisions.read(path)) == 1


def test_a_port_or_a_table_that_cannot_be_had_is_refused(found, images, tmp_path):
    path = tmp_path / "corrections.csv"
    with (
        serving(path, found, images) as server,
        pytest.raises(InputError, match="found one that is in use; name another"),
    ):
        decisions.serve(path, found, [], b"", page.photographs(found, images), server.server_port)
    path.write_text(HEAD.replace("note", "note,colour"))
    with pytest.raises(InputError, match="found colour too, which would be lost"):
        decisions.Decisions(path, found)


def test_answers_are_found_again_in_the_rows_that_hold_them(found):
    out = Suspect("b", "b", "", "", "", 0.5, [], [_row("b", "mask1", "leave_out", "no", "yes")])
    assert decisions.rows(out, "y") == out.corrections
    (row,) = decisions.rows(out, "n")
    assert (row["given"], row["correct"], row["certainty"]) == ("no", "no", "sure")
    suspects = [*found, out]
    table = [EARLIER] + [
        row for one, answer in zip(suspects, "yn?ny", strict=True) for row in decisions.rows(one, answer)
    ]
    answers, others = decisions.sort_out(table, suspects)
    assert [answer for answer, _ in answers.values()] == list("yn?ny") and others == [EARLIER]
    assert [row for _, rows in answers.values() for row in rows] == table[1:]
    half = table[3]  # of an answer
    assert decisions.sort_out([*table[:2], half], suspects) == ({0: ("y", table[1:2])}, [EARLIER, half])
    assert decisions.edition(suspects) != decisions.edition(suspects[::-1])
