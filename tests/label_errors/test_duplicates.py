"""Duplicates of other folders, in real photographs and in random ones."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageEnhance

import dataset
from toolkit.data.framing import Framing
from toolkit.data.store import Store
from toolkit.label_errors import duplicates, evidence


@pytest.mark.parametrize("has_own_names", [False, True])
def test_copies_under_another_id_are_found_after_changes(drawn, tmp_path, has_own_names):
    table, _ = dataset.read_faces(drawn.train)
    changes = [
        lambda photo: photo.resize((300, 400)),
        lambda photo: ImageEnhance.Brightness(photo).enhance(1.2),
        lambda photo: photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ]
    paths, copies = dataset.paths(table, drawn.train), []
    for number, (change, folder) in enumerate(zip(changes, table["folder"].unique(), strict=False)):
        for row in np.flatnonzero(table["folder"] == folder):
            one = table.iloc[row].to_dict() | {"folder": f"z{number}", "person": f"z{number}", "file": f"{row}.jpg"}
            copies.append(one)
            with Image.open(paths[row].decode()) as photo:
                change(photo.convert("RGB")).save(tmp_path / f"{row}.jpg", quality=70)
    both = pd.concat(
        [table.astype({"folder": str, "person": str, "file": str}), pd.DataFrame(copies)], ignore_index=True
    )
    if has_own_names:
        both["photograph"] = np.arange(len(both)).astype(str)
    store = Store([*paths, *(str(tmp_path / one["file"]).encode() for one in copies)], Framing((64, 48)))
    assert store.fill() == {}
    found = {one.folder: one for one in duplicates.find_duplicates(evidence.with_correction_names(both), store)}
    for number, folder in enumerate(table["folder"].unique()[:3]):
        copy = found.pop(f"z{number}")
        assert copy.probability > 0.5 and folder in copy.suggestion
        (row,) = copy.corrections
        assert (row["person"], row["field"], row["correct"]) == (f"z{number}", "leave_out", "yes")
    assert sum(one.probability for one in found.values()) < 0.5  # the originals are no duplicates


class Pixels:
    """A store of random photographs that have a face in common."""

    def __init__(self, count: int):
        generator = torch.Generator().manual_seed(0)
        face = torch.rand((1, 16, 12, 3), generator=generator) * 200
        self.pixels = (face + 40 * torch.rand((count, 16, 12, 3), generator=generator)).to(torch.uint8)

    def __len__(self):
        return len(self.pixels)

    def gather(self, index):
        return self.pixels[index]


def test_a_folder_unlike_all_others_is_no_duplicate():
    store = Pixels(7 * 200)
    codes = np.repeat(np.arange(200), 7)
    nearest, p, nats = duplicates.score_folders(store, codes, np.tile(np.arange(7), 200), np.arange(200).astype(str))
    assert p.sum() < 0.5 and nats.max() < 3 and (nearest < np.maximum(np.arange(200), 1)).all()
    store.pixels[7 * 150 : 7 * 151] = store.pixels[:7]
    people = np.arange(200).astype(str)
    nearest, p, _ = duplicates.score_folders(store, codes, np.tile(np.arange(7), 200), people)
    assert p[150] > 0.9 and nearest[150] == 0 and p.sum() < p[150] + 0.5
    people[150] = people[0]  # two folders of one person are not compared
    assert duplicates.score_folders(store, codes, np.tile(np.arange(7), 200), people)[1][150] < 0.5


@pytest.mark.parametrize("people", [["a"], ["a", "a"], ["a", "b"]])
def test_a_folder_with_none_to_compare_with_is_no_duplicate(people):
    store = Pixels(7 * len(people))
    codes, names = np.repeat(np.arange(len(people)), 7), np.tile(np.arange(7), len(people))
    _, p, nats = duplicates.score_folders(store, codes, names, np.array(people))
    assert p.max() < 0.01 and nats.max() < 0
