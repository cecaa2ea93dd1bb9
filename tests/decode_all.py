"""Decode every photograph of a folder; a line for each: its name, and why it is bad, if it is."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from toolkit.data.framing import Framing
from toolkit.data.store import Store

paths = sorted(map(str, pathlib.Path(sys.argv[1]).iterdir()))
bad = Store(paths, Framing((64, 48))).fill()
for number, path in enumerate(paths):
    print(path, bad.get(number, ""))
