"""The page on which a person decides of each suspect whether its labels are wrong: as a file, or served here."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from toolkit.data import store
from toolkit.label_errors import decisions
from toolkit.label_errors.corrections import as_csv
from toolkit.label_errors.ranking import Suspect
from toolkit.pages import page, pictures
from toolkit.system.console import bar

HEIGHT_PX = 128  # of a photograph in the page
NEXT = "RELABEL=sure,{} python train.py"


def write(
    path: pathlib.Path,
    suspects: Sequence[Suspect],
    images: pathlib.Path,
    facts: str,
    kept: Sequence[Mapping[str, str]],
    key: str,
) -> None:
    """Write the page as one file, which keeps the decisions in the browser until they are saved as corrections.csv.

    The most suspect comes first, `images` is the image folder, and `facts` stands above all. `kept` are rows of an
    earlier corrections.csv, on other people, which are carried on. `key` names the data set: a page that is made anew
    with it knows what was decided in the last one.
    """
    told = _told(suspects, facts, "corrections.csv")
    told["data"] |= {
        "key": key,
        "head": as_csv(kept),
        # JavaScript only joins texts: how a correction is written is known in one place.
        "lines": [
            {answer: as_csv(decisions.rows(one, answer), head=False) for answer in decisions.ANSWERS}
            for one in suspects
        ],
    }
    page.write(path, "suspects.html", **told, rows=_rows(suspects, images), served=False)


def served(path: pathlib.Path, suspects: Sequence[Suspect], facts: str) -> bytes:
    """The same page for `review.serve`, which writes each decision to the file `path` and shows the photographs."""
    told = _told(suspects, facts, str(path))
    told["data"]["edition"] = decisions.edition(suspects)
    return page.render("suspects.html", **told, rows=[], served=True).encode()


def photographs(suspects: Sequence[Suspect], images: pathlib.Path) -> Callable[[int], bytes]:
    """What gives the photographs of a suspect as a JPEG: those of `write`, but twice as large."""
    return lambda number: pictures.jpeg(_row(suspects[number], images, 2 * HEIGHT_PX))


def _rows(suspects: Sequence[Suspect], images: pathlib.Path) -> list[str]:
    """The picture of each suspect, as an address that holds it."""
    threads = ThreadPoolExecutor(store.processors())  # Pillow's decoders and encoders run beside each other
    try:
        rows = threads.map(lambda suspect: pictures.data_uri(_row(suspect, images, HEIGHT_PX)), suspects)
        return list(bar(rows, "photographs", len(suspects)))
    finally:
        threads.shutdown(cancel_futures=True)  # of a script that was told to stop


def _row(suspect: Suspect, images: pathlib.Path, height: int) -> Image.Image:
    """One picture for all photographs of a suspect: seven would take seven times as many elements and requests."""
    photos = [pictures.thumbnail(images / path, height) for path, _ in suspect.photographs]
    return pictures.in_a_row(photos, height)


def _told(suspects: Sequence[Suspect], facts: str, file: str) -> dict:
    """What suspects.html shows, and what suspects.js works with, but for where decisions go."""
    shown = [
        {
            "folder": suspect.folder,
            "says": suspect.says,
            "suggests": suspect.suggests,
            "why": suspect.why,
            "probability": suspect.probability,
            "captions": [caption for _, caption in suspect.photographs],
        }
        for suspect in suspects
    ]
    command = NEXT.format(file)
    return {
        "title": "Suspects",
        "facts": facts,
        "suspects": suspects,
        "file": file,
        "command": command,
        "data": {"suspects": shown, "command": command},
    }
