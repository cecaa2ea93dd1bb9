"""What a script prints while it works."""

import io
import os
import re
import subprocess
import sys
import time

import pytest
from faults import ROOT, environment

from toolkit.system import console


def test_where_is_no_terminal_long_work_says_how_far_it_has_come_and_short_work_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.05)
    for _ in console.bar(range(8), "short"):
        pass
    assert capsys.readouterr() == ("", "")
    for _ in console.bar(range(8), "epoch 3"):
        time.sleep(0.03)
    with console.bar(what="decoding", total=40) as progress:
        for _ in range(4):
            time.sleep(0.03)
            progress.update(10)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert re.match("  epoch 3: [1-4] of 8, 00:0. so far, 00:0. left", lines[0]) and 4 <= len(lines) <= 8
    assert lines[-1].startswith("  decoding: ") and " of 40, " in lines[-1] and printed.err == ""


# A script that prints long lines on both streams, flushed and not, and has a bar; then it writes a file.
PRINTS = """
import sys
from toolkit.system import console

def main(argv):
    for number in console.bar(range(300), "얼굴"):
        console.say("얼굴" * 99)
        print("얼굴" * 99, file=sys.stderr)
    with open(argv[0], "w") as file:
        assert file.fileno() > 2  # else what is printed would go there

console.run(main)
"""


STREAMS = [">&-", "2>&-", "<&- >&- 2>&-", "| true", "2>&1 | head -c 1"]
STREAMS += [">/dev/full 2>&1"] * os.path.exists("/dev/full")  # which macOS has not


@pytest.mark.parametrize("streams", STREAMS)
def test_a_script_does_its_work_wherever_its_streams_lead(tmp_path, streams):
    """Streams that are closed, whose reader is gone or whose disk is full; and characters that the terminal lacks."""
    (tmp_path / "script.py").write_text(PRINTS)
    command = f"{sys.executable} script.py done {streams}; echo ${{PIPESTATUS[0]}} > status"
    variables = environment(PYTHONPATH=ROOT, PYTHONIOENCODING="ascii")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=variables, capture_output=True, timeout=60)
    assert (tmp_path / "status").read_text() == "0\n" and (tmp_path / "done").exists(), done.stderr
    assert not any(word in done.stdout + done.stderr for word in (b"Traceback", b"Exception"))
    told = done.stderr.count(b"cannot be written")
    assert told == ("| true" in streams), done.stderr[-200:]
    if streams == ">&-":
        assert done.stderr.startswith(b"\\uc5bc\\uad74")


def test_what_is_said_to_a_stream_that_is_closed_or_narrow_ends_nothing(monkeypatch):
    """If the scripts are imported, the streams are the importer's."""
    monkeypatch.setattr(sys, "stdout", None)
    console.say("nobody reads this")
    narrow = io.TextIOWrapper(io.BytesIO(), "latin-1")
    monkeypatch.setattr(sys, "stdout", narrow)
    console.say("얼굴")
    assert narrow.buffer.getvalue() == b"\\uc5bc\\uad74\n"
