"""What a script prints while it works."""

import time

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
    assert lines[0].startswith("  epoch 3: 2 of 8, 00:00 so far, 00:00 left") and 4 <= len(lines) <= 7
    assert lines[-1].startswith("  decoding: ") and " of 40, " in lines[-1] and printed.err == ""
