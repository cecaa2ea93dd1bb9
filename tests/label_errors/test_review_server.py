"""The review server: what is on the disk when the page says so, whom it answers, and how it ends."""

import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest
from browser import DESK, opened
from conftest import ROOT
from playwright.sync_api import expect
from reviewing import EARLIER, EARLIER_LINE, HEADER, answers, correction, current, press, serving, status

from toolkit.label_errors import corrections, decisions, review_server
from toolkit.label_errors.ranking import Suspect
from toolkit.pages import suspects as suspects_page
from toolkit.system import files
from toolkit.system.console import InputError


def test_a_decision_is_on_the_disk_before_the_page_shows_it_as_saved(browser, suspects, images, tmp_path):
    path = tmp_path / "corrections.csv"
    with serving(path, suspects, images, [EARLIER]) as server, opened(browser, server.address, viewport=DESK) as shown:
        status(shown, "0 of 4 decided")
        with server.decisions._lock:  # a disk that takes its time
            press(shown, "y")
            assert current(shown) == 1
            assert shown.locator("article").first.locator(".answer").inner_text().endswith("(saving)")
            status(shown, "0 of 4 decided")
            assert not path.exists()
        status(shown, "1 of 4 decided: 1 yes")
        first, second = (
            corrections.to_csv(decisions.rows_of_answer(suspects[i], answer), header=False)
            for i, answer in ((0, "y"), (1, "?"))
        )
        assert path.read_text() == HEADER + EARLIER_LINE + first
        press(shown, "?")
        status(shown, "2 of 4 decided")
        assert path.read_text() == HEADER + EARLIER_LINE + first + second
        press(shown, "k k u")
        status(shown, "1 of 4 decided")
        assert path.read_text() == HEADER + EARLIER_LINE + first
        press(shown, "j y")  # of another row: what was written stays
        status(shown, "2 of 4 decided: 2 yes")
        shown.reload()
        status(shown, "2 of 4 decided: 2 yes")
        assert answers(shown) == ["y", None, "y", None] and current(shown) == 1
        path.write_text(HEADER + EARLIER_LINE)  # somebody takes all decisions out by hand
        press(shown, "n")
        status(shown, "1 of 4 decided: 0 yes, 1 no")
        expect(shown.get_by_role("alert")).to_contain_text("was changed meanwhile: 0 rows added, 2 removed")


def test_a_new_server_continues_from_the_file(browser, suspects, images, tmp_path):
    path = tmp_path / "corrections.csv"
    own = correction("someone", "mask1", "mask", "worn", "incorrect") | {"note": "by hand"}
    changed = decisions.rows_of_answer(suspects[3], "y")[0] | {"given": "female", "correct": "male"}
    second, third = (
        decisions.rows_of_answer(suspects[1], "n"),
        [decisions.rows_of_answer(suspects[2], "?")[0] | {"note": "too dark", "sha256": "cd34"}],
    )
    path.write_text(corrections.to_csv([own, *second, changed, *third]))
    earlier = decisions.rows_of_answer(suspects[0], "y")  # and taken back since, as the file says
    with serving(path, suspects, images, earlier) as server, opened(browser, server.address, viewport=DESK) as shown:
        status(shown, "2 of 4 decided: 0 yes, 1 no, 1 ?")
        press(shown, "y")
        status(shown, "3 of 4 decided")
        assert path.read_text() == corrections.to_csv([own, changed, *earlier, *second, *third])
        press(shown, "y")
        status(shown, "4 of 4 decided")  # a message of before would contradict it
        last = decisions.rows_of_answer(suspects[3], "y")
        assert path.read_text() == corrections.to_csv([own, *earlier, *second, *third, *last])
        press(shown, "u")
        status(shown, "3 of 4 decided")
    assert path.read_text() == corrections.to_csv([own, changed, *earlier, *second, *third])


def test_a_decision_that_cannot_be_written_does_not_count(browser, suspects, images, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    shown = browser.new_page(viewport=DESK)
    with serving(folder / "corrections.csv", suspects, images) as server:
        shown.goto(server.address)
        status(shown, "0 of 4 decided")
        press(shown, "y")
        status(shown, "1 of 4 decided")
        shutil.rmtree(folder)
        press(shown, "n")
        alert = shown.get_by_role("alert")
        expect(alert).to_contain_text(f"Not saved: the last decision on {suspects[1].folder}: ")
        expect(alert).to_contain_text("cannot be written: No such file or directory")
        assert answers(shown) == ["y", None, None, None] and server.decisions.answers == {0: "y"}
        status(shown, "1 of 4 decided")
        folder.mkdir()
        press(shown, "u")  # the last that was kept
        status(shown, "0 of 4 decided")
        assert decisions.read_rows(folder / "corrections.csv") == []
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
    for _ in range(50):  # until none is left of the connections that a browser keeps open
        if "the server has ended" in alert.inner_text():
            press(shown, "y")
            shown.wait_for_timeout(100)
    expect(alert).to_contain_text("is suspects.py still running?")
    assert alert.bounding_box()["y"] < 200 and answers(shown) == ["y", None, None, None]
    shown.close()


def test_a_failed_decision_does_not_undo_a_later_one(browser, suspects, images, tmp_path, monkeypatch):
    shown = browser.new_page(viewport=DESK)
    with serving(tmp_path / "corrections.csv", suspects, images) as server:
        decide, waiting, sent = server.decisions.decide, threading.Event(), []

        def first_fails(number, answer):
            sent.append(answer)
            assert waiting.wait(10)
            if len(sent) == 1:
                raise InputError("the disk is full")
            decide(number, answer)

        monkeypatch.setattr(server.decisions, "decide", first_fails)
        shown.goto(server.address)
        status(shown, "0 of 4")
        press(shown, "y k n")
        assert answers(shown)[0] == "n"
        waiting.set()
        status(shown, "1 of 4 decided: 0 yes, 1 no")
        assert answers(shown)[0] == "n" and sent == ["y", "n"]
    shown.close()


def request(server, method="POST", path="decisions", body=None, **headers) -> tuple[int, bytes]:
    host = f"127.0.0.1:{server.server_port}"
    sent = {"number": 0, "answer": "y", "list_hash": server.list_hash} if body is None else body
    content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    headers = {"Host": host, "Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    connection = http.client.HTTPConnection(host, timeout=10)
    path = path if path.startswith("/") else server.secret_path + path
    connection.request(method, path, content if method == "POST" else None, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_only_requests_of_its_own_page_on_this_machine_are_answered(suspects, images, tmp_path):
    with serving(tmp_path / "corrections.csv", suspects, images) as server:
        port = server.server_port
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
            assert request(server, "GET", "", Host=host)[0] == 403, host
            assert request(server, Host=host)[0] == 403, host
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"):
            assert request(server, Origin=origin)[0] == 403, origin
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert request(server, Content_Type=kind)[0] == 415, kind
        assert request(server, body=b" " * 5000)[0] == 413
        assert request(server, Content_Length="-1")[0] == 413
        for path in ("/", "/decisions", "/photographs/0.jpg", "/x/decisions"):  # who does not know the address
            assert request(server, "GET", path)[0] == request(server, path=path)[0] == 404, path
        assert request(server, path="")[0] == 404
        whole = {"number": 0, "answer": "y", "list_hash": server.list_hash}
        for change in ({"number": 4}, {"number": -1}, {"number": True}, {"number": "0"}, {"answer": "x"}):
            assert request(server, body=whole | change)[0] == 400, change
        for body in (b"", b"[]", b"\xff", b"{}", b"[" * 900):
            assert request(server, body=body)[0] == 400, body
        assert request(server, body=whole | {"list_hash": "of an earlier list"})[0] == 409
        for path in ("photographs/4.jpg", "photographs/-1.jpg", "photographs/../../etc/passwd", "index.html",
                     "photographs/%2e%2e/0.jpg", "corrections.csv", "photographs/0.jpg/../1.jpg"):  # fmt: skip
            assert request(server, "GET", path)[0] == 404, path
        assert server.decisions.answers == {} and not server.decisions.path.exists()
        assert request(server, Host=f"localhost:{port}", Origin=f"http://localhost:{port}") == (200, b"{}")
        assert request(server, "GET") == (200, b'{"0": "y"}')


def test_a_closed_connection_prints_nothing_and_a_second_server_is_refused(suspects, images, tmp_path, capsys):
    path = tmp_path / "corrections.csv"
    with serving(path, suspects, images) as server:
        for _ in range(3):  # asks for a picture, and is gone with a reset before it comes
            with socket.create_connection(("127.0.0.1", server.server_port)) as gone:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                address, host = f"{server.secret_path}photographs/0.jpg", f"127.0.0.1:{server.server_port}"
                gone.sendall(f"GET {address} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() * 20)
        assert request(server) == (200, b"{}")
        with files.locked(tmp_path):  # somebody else's script, which only writes for a moment
            pass
    assert capsys.readouterr().err == ""
    with files.locked(tmp_path, name=review_server.LOCK), pytest.raises(InputError, match="another suspects.py serves"):
        review_server.serve(path, suspects, [], b"", suspects_page.photographs(suspects, images), 0)


def test_decisions_at_the_same_time_are_all_written(thousands, images, tmp_path):
    with serving(tmp_path / "corrections.csv", thousands, images) as server, ThreadPoolExecutor(8) as threads:
        bodies = [{"number": number, "answer": "y", "list_hash": server.list_hash} for number in range(0, 96, 4)]
        assert {status for status, _ in threads.map(lambda body: request(server, body=body), bodies)} == {200}
        assert len(decisions.read_rows(server.decisions.path)) == len(bodies)


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_ends_the_server_and_nothing_is_lost(number, ends, tmp_path):
    code = """if True:
        import pathlib, sys
        from toolkit.system import console
        from toolkit.label_errors import review_server
        from toolkit.label_errors.ranking import Suspect
        one = Suspect("a", "a", "", (), "", "", 0.5, [], [{"person": "a", "field": "gender", "given": "male"}])
        console.run(lambda argv: review_server.serve(pathlib.Path(argv[0]), [one, one], [], b"", None, 0))
    """
    path = tmp_path / "corrections.csv"
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    )  # fmt: skip
    address = next(word for word in process.stdout.readline().split() if word.startswith("http"))
    place = urllib.parse.urlsplit(address)
    one = Suspect("a", "a", "", (), "", "", 0.5, [], [{"person": "a", "field": "gender", "given": "male"}])
    body = json.dumps({"number": 1, "answer": "n", "list_hash": decisions.hash_of_list([one, one])})
    connection = http.client.HTTPConnection(place.netloc)
    connection.request("POST", f"{place.path}decisions", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200  # and the connection stays open, as a browser's does
    assert sorted(os.listdir(tmp_path)) == [".suspects.lock", "corrections.csv"]
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == ends and "Traceback" not in err
    assert ("1 of 2 decided" in out and str(path) in out) == (ends == 0)
    assert os.listdir(tmp_path) == ["corrections.csv"] and len(decisions.read_rows(path)) == 1


def test_a_port_that_is_in_use_is_refused(suspects, images, tmp_path):
    path = tmp_path / "corrections.csv"
    with (
        serving(path, suspects, images) as server,
        pytest.raises(InputError, match="found one that is in use; name another"),
    ):
        review_server.serve(path, suspects, [], b"", suspects_page.photographs(suspects, images), server.server_port)
