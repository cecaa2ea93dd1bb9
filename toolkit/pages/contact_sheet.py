"""The page of a data set: people, corrections, augmentation and problems, to be looked at before training."""

import pathlib

import numpy as np
import pandas as pd
import torch

from toolkit.config.settings import DatasetSettings
from toolkit.data import augment
from toolkit.data.store import Store
from toolkit.labels import ATTRIBUTES
from toolkit.pages import page, pictures
from toolkit.pages.answers import NO_PHOTOGRAPHS

OF_EACH = 4  # people of each gender and age band
CORRECTED = 60  # people, at the most
AUGMENTED = 8  # photographs
HEIGHT_PX = 104


def write(
    config: DatasetSettings,
    as_found: pd.DataFrame,
    corrected: pd.DataFrame,
    store: Store,
    problems: dict[str, list[str]],
    said: list[str],
) -> pathlib.Path:
    """Write dataset.html: the faces as they were found, which `store` has, and as they were corrected.

    `problems` and `said` are what toolkit/problems.py found and what dataset.py printed.
    """
    path, shown = config.sm_output_data_dir / "dataset.html", config.report_photos
    page.write(
        path,
        "dataset.html",
        title="Data set",
        facts=f"{len(as_found):,} photographs of {as_found['person'].nunique():,} people in {config.sm_channel_train}",
        why_no_photographs="" if shown else NO_PHOTOGRAPHS,
        said=said,
        problems=problems,
        people_shown=[_person(as_found, store, rows) for rows in _sample(as_found, config.seed)] if shown else [],
        corrections=_corrections(as_found, corrected, store, shown),
        policies=list(augment.POLICIES),
        augmented=_augmented(store, config.seed) if shown else [],
    )
    return path


def _sample(faces: pd.DataFrame, seed: int) -> list[np.ndarray]:
    """Rows of some people of each gender and age band."""
    rng, chosen = np.random.default_rng([seed, 4]), []
    for _, group in faces.groupby(["gender", "age"]):
        folders = group["folder"].unique()
        some = rng.choice(folders, min(OF_EACH, len(folders)), replace=False)
        chosen += [np.flatnonzero(faces["folder"] == folder) for folder in sorted(some)]
    return chosen


def _person(faces: pd.DataFrame, store: Store, rows: np.ndarray) -> dict:
    """A person, with what stands below each photograph, and the photograph."""
    photographs = [
        (str(faces["photograph"].iloc[row]), pictures.thumbnail(store.paths[row], HEIGHT_PX)) for row in rows
    ]
    return {"name": str(faces["folder"].iloc[rows[0]]), "photographs": photographs}


def _corrections(before: pd.DataFrame, after: pd.DataFrame, store: Store, shown: bool) -> list[dict]:
    """People of whom something was corrected, with what became of each of their photographs."""
    keys = ["folder", "file"]
    after = after.set_index([after[key].astype(str) for key in keys])[list(ATTRIBUTES)].to_dict("index")
    found: dict[str, dict] = {}
    for row, (folder, file) in enumerate(zip(*(before[key].astype(str) for key in keys), strict=True)):
        now = after.get((folder, file))
        said = {name: int(before[name].iloc[row]) for name in ATTRIBUTES}
        if now == said or (folder not in found and len(found) == CORRECTED):
            continue
        changes = "left out" if now is None else _changes(said, now)
        photo = pictures.thumbnail(store.paths[row], HEIGHT_PX) if shown else None
        person = found.setdefault(folder, {"name": folder, "photographs": []})
        person["photographs"].append((f"{file}: {changes}", photo))
    return list(found.values())


def _changes(before: dict[str, int], after: dict[str, int]) -> str:
    return ", ".join(
        f"{values[before[name]]} to {values[after[name]]}".replace("_", " ")
        for name, values in ATTRIBUTES.items()
        if before[name] != after[name]
    )


def _augmented(store: Store, seed: int) -> list[list]:
    """Some photographs, each under every policy: a list of pictures a photograph."""
    count = min(AUGMENTED, len(store))
    pixels = store.gather(torch.arange(len(store)).float().quantile(torch.linspace(0, 1, count)).long())
    mean, std, draws = torch.full((3,), 0.5), torch.full((3,), 0.25), augment.draw(seed, 0, count)
    sides = []
    for policy in augment.POLICIES.values():
        sides.append(augment.to_pixels(augment.prepare(pixels, mean, std, policy, draws), mean, std))
    return [[pictures.of_pixels(side[number], HEIGHT_PX) for side in sides] for number in range(count)]
