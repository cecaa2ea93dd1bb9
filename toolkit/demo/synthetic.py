"""The built-in data set: drawn faces of made-up people, in the layout of the real data.

Deterministic: the same seed draws the same pixels, however many threads there are.
"""

import hashlib
import os
import pathlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from toolkit import labels
from toolkit.config.shared import DEMO_DATA, Settings
from toolkit.demo.person import make_person
from toolkit.demo.portrait import PHOTOGRAPHS, make_films, portrait
from toolkit.system import csv_files, files
from toolkit.system.console import InputError, say

DRAWING = 1  # raise it when the pictures change: folders of the older drawing are then refused
MARKER = "drawing.txt"
# Shares of (gender, age band). In the real data 7 % are 60 and over: too few for a demo of 280 people.
TRAIN_SHARES = np.outer((0.45, 0.55), (0.35, 0.35, 0.30))
EVAL_SHARES = np.full((2, 3), 1 / 6)


def draw_cast(shares, people, rng):
    """(gender, age) of each person in random order, in the given shares of (gender, age band)."""
    cells = np.searchsorted(np.cumsum(shares), (np.arange(people) + 0.5) / people)
    ages = np.stack([18 + 12 * rng.beta(1, 2.2, people), rng.triangular(30, 45, 60, people), np.full(people, 60)])
    return [(int(cell) // 3, int(ages[cell % 3, i])) for i, cell in enumerate(rng.permutation(cells))]


def draw_people(cast, keys, seed, path_of):
    """Draw everybody's photographs to path_of(number, photograph); each person's key is part of the random seed.

    `cast` holds (gender, age) of each person, or (gender, age, the years that the person looks).
    """
    films = make_films(np.random.default_rng([seed, 0]))

    def draw(number):
        person = make_person(*cast[number], rng=np.random.default_rng([seed, keys[number]]))
        for photograph in range(len(PHOTOGRAPHS)):
            image = portrait(person, photograph, np.random.default_rng([seed, keys[number], photograph]), films)
            image.save(path_of(number, photograph), quality=90, compress_level=1)  # of JPEG, of PNG

    with ThreadPoolExecutor(2) as threads:  # Pillow's filters and encoders run in parallel
        list(threads.map(draw, range(len(cast))))


def draw_train(folder, cast, seed):
    import pandas as pd  # slow to import, and not needed if the faces are drawn already

    keys = range(900001, 900001 + len(cast))
    people = pd.DataFrame([person[:2] for person in cast], columns=["gender", "age"]).assign(id=keys, race="Drawn")
    people["gender"] = people["gender"].map({0: "male", 1: "female"})
    people["path"] = [f"{row.id}_{row.gender}_{row.race}_{row.age}" for row in people.itertuples()]
    for name in people["path"]:
        (folder / "images" / name).mkdir(parents=True)

    def path_of(number, photograph):
        extension = {7: "png", 20: "jpeg"}.get(number % 35, "jpg")
        return folder / "images" / people["path"][number] / f"{PHOTOGRAPHS[photograph]}.{extension}"

    draw_people(cast, keys, seed, path_of)
    csv_files.write(folder / "train.csv", people[["id", "gender", "race", "age", "path"]])


def draw_eval(folder, cast, seed, rng):
    import pandas as pd

    keys = range(950001, 950001 + len(cast))
    (folder / "images").mkdir(parents=True)

    def name_of(number, photograph):
        return hashlib.sha1(f"{seed}/{keys[number]}/{PHOTOGRAPHS[photograph]}".encode()).hexdigest() + ".jpg"

    draw_people(cast, keys, seed, lambda number, photograph: folder / "images" / name_of(number, photograph))
    rows = [
        (
            name_of(number, photograph),
            labels.to_class(max(0, photograph - 4), gender, labels.age_band(age)),
            keys[number],
        )
        for number, (gender, age, *_) in enumerate(cast)
        for photograph in range(len(PHOTOGRAPHS))
    ]
    truth = pd.DataFrame([rows[i] for i in rng.permutation(len(rows))], columns=["ImageID", "ans", "person"])
    csv_files.write(folder / "gt.csv", truth)
    csv_files.write(folder / "info.csv", truth[["ImageID", "ans"]].assign(ans=0))


def is_whole(folder, marker):
    if not folder.exists() or not any(folder.iterdir()):
        return False
    found = (folder / MARKER).read_text() if (folder / MARKER).exists() else "no drawing of this toolkit"
    if found != marker:
        raise InputError(f"{folder}: expected '{marker}', found '{found}'; remove that folder or name another")
    return True


def ensure_for(settings: Settings) -> None:
    """If the script has no folder set, draw the faces, unless they exist."""
    if settings.demo:
        ensure(DEMO_DATA)


def ensure(folder: pathlib.Path, people: int = 280, eval_people: int = 100, seed: int = 0) -> None:
    """Draw the data set into `folder`, unless it is complete there already.

    Writes train/images/<id>_<gender>_Drawn_<age>/, train/train.csv, eval/images/, eval/info.csv and eval/gt.csv.
    Raises InputError if the folder holds anything else, such as a drawing of another seed.
    """
    folder = pathlib.Path(folder)
    marker = f"drawing {DRAWING}, seed {seed}, people {people}, eval_people {eval_people}"
    if is_whole(folder, marker):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(folder.parent):
        if is_whole(folder, marker):  # another process has drawn it meanwhile
            return
        say(f"drawing {people + eval_people} people, {len(PHOTOGRAPHS)} photographs of each, once")
        draft = pathlib.Path(tempfile.mkdtemp(".part", f".{folder.name}.", folder.parent))
        try:
            draw_train(draft / "train", draw_cast(TRAIN_SHARES, people, np.random.default_rng([seed, 1])), seed)
            rng = np.random.default_rng([seed, 2])
            draw_eval(draft / "eval", draw_cast(EVAL_SHARES, eval_people, rng), seed, rng)
            (draft / MARKER).write_text(marker)
            with files.if_it_can("set the rights of files", folder.parent):
                draft.chmod(0o755)  # mkdtemp's folders are private
            try:
                os.rename(draft, folder)
            except OSError:
                if not is_whole(folder, marker):  # else another process was faster, and drew the same
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
