"""suspects.html: a person decides for each suspect whether its label is wrong. Written as a file, or for the server."""

import pathlib
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from toolkit.data import store
from toolkit.label_errors import decisions
from toolkit.label_errors.corrections import to_csv
from toolkit.label_errors.ranking import Suspect
from toolkit.pages.parts import pictures, render
from toolkit.system.console import bar

HEIGHT_PX = 128  # of photographs in the file
NEXT_COMMAND = "SM_CHANNEL_TRAIN={} SM_MODEL_DIR=runs RELABEL=sure,{} python train.py"


def write(
    path: pathlib.Path,
    suspects: Sequence[Suspect],
    images: pathlib.Path,
    facts: str,
    earlier: Sequence[Mapping[str, str]],
    key: str,
) -> None:
    """Write the page as one file. The browser keeps the decisions until they are saved as corrections.csv.

    `images`: the image folder; `facts`: the first line; `earlier`: rows of earlier rounds, on other people, which the
    saved table begins with; `key`: of the decisions in the browser. A page that is written again with it finds them.
    """
    context = _template_context(suspects, images, facts, path.with_name("corrections.csv"))
    context["data"] |= {
        "key": key,
        "head": to_csv(earlier),
        # JavaScript only joins texts: one place knows how a correction is written.
        "lines": [
            {answer: to_csv(decisions.rows_of_answer(one, answer), header=False) for answer in decisions.ANSWERS}
            for one in suspects
        ],
    }
    render.write(path, "suspects.html", **context, pictures=_data_uris(suspects, images), is_served=False)


def render_served(path: pathlib.Path, suspects: Sequence[Suspect], images: pathlib.Path, facts: str) -> bytes:
    """The same page for `review_server.serve`, which writes decisions to the file `path` and sends the photographs."""
    context = _template_context(suspects, images, facts, path)
    context["data"]["list_hash"] = decisions.hash_of_list(suspects)
    return render.render("suspects.html", **context, pictures=[], is_served=True).encode()


def photographs(suspects: Sequence[Suspect], images: pathlib.Path) -> Callable[[int], bytes]:
    """For `review_server.serve`: number of a suspect -> its photographs as a JPEG, twice as high as in the file."""
    return lambda number: pictures.jpeg(_picture(suspects[number], images, 2 * HEIGHT_PX))


def _data_uris(suspects: Sequence[Suspect], images: pathlib.Path) -> list[str]:
    """The picture of each suspect as a data URI."""
    threads = ThreadPoolExecutor(store.cpu_count())  # Pillow decodes and encodes without the interpreter's lock
    try:
        uris = threads.map(lambda suspect: pictures.data_uri(_picture(suspect, images, HEIGHT_PX)), suspects)
        return list(bar(uris, "photographs", len(suspects)))
    finally:
        threads.shutdown(cancel_futures=True)  # else Ctrl-C would wait for thousands of pictures


def _picture(suspect: Suspect, images: pathlib.Path, height: int) -> Image.Image:
    """All photographs of a suspect as one picture: seven would take seven times as many elements and requests."""
    photos = [pictures.thumbnail(images / path, height) for path, _ in suspect.photographs]
    return pictures.in_a_row(photos, height)


def _template_context(
    suspects: Sequence[Suspect], images: pathlib.Path, facts: str, corrections_file: pathlib.Path
) -> dict:
    """What file and served page have in common: the variables of suspects.html, and `data` of suspects.js."""
    shown = [
        {
            "folder": suspect.folder,
            "label": suspect.label,
            "kinds": suspect.kinds,
            "suggestion": suspect.suggestion,
            "evidence": suspect.evidence,
            "probability": suspect.probability,
            "captions": [caption for _, caption in suspect.photographs],
        }
        for suspect in suspects
    ]
    file = str(corrections_file.absolute())
    command = NEXT_COMMAND.format(shlex.quote(str(images.absolute())), shlex.quote(file))
    return {
        "title": "Suspects",
        "facts": facts,
        "suspects": suspects,
        "kinds": Counter(kind for suspect in suspects for kind in suspect.kinds),
        "corrections_file": file,
        "command": command,
        "data": {"suspects": shown, "command": command, "file": file},
    }
