"""What the scripts stand on: nothing in here imports the files at the top of the repository."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent  # of the repository
