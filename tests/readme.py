"""The settings tables of the README, written from the settings themselves: `make readme`."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from toolkit.config import sources  # noqa: E402
from toolkit.config.settings import SCRIPTS  # noqa: E402

README = ROOT / "README.md"


def rewritten(text: str) -> str:
    """The README's text with every table between its two marks as it should be."""
    for script, settings in SCRIPTS.items():
        table = sources.table(settings, train.CHOICES if script == "train.py" else None)
        before, begin, rest = text.partition(f"<!-- settings of {script} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert begin and end, f"README.md: expected a comment 'settings of {script}' and one 'end' after it"
        text = f"{before}{begin}{table}\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
