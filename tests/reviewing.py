"""Suspects to decide on, a server for their page, and what a person does on the page in a browser."""

import contextlib
import shutil
import threading

import pytest
from playwright.sync_api import expect

import dataset
from toolkit.label_errors import corrections, decisions, review_server
from toolkit.label_errors.ranking import Suspect
from toolkit.pages import suspects as suspects_page

HOSTILE = """x<i>"&'<script>_male_Drawn_40"""
OTHER = {"male": "female", "female": "male"}
HEADER = "person,photograph,field,given,correct,certainty,note,sha256\n"
EARLIER = {"person": "000001", "photograph": "all", "field": "gender", "given": "male", "correct": "female",
           "certainty": "sure", "note": 'said "no", twice', "sha256": "ab12"}  # fmt: skip
EARLIER_LINE = '000001,all,gender,male,female,sure,"said ""no"", twice",ab12\n'


@pytest.fixture(scope="module")
def images(drawn, tmp_path_factory):
    """The folder of four people: the last has HTML in its name and a photograph that cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    *three, last = sorted(drawn.train.iterdir())[:4]
    for person in three:
        shutil.copytree(person, folder / person.name)
    shutil.copytree(last, folder / HOSTILE)
    (folder / HOSTILE / "mask2.jpg").write_bytes(b"no photograph")
    return folder


@pytest.fixture(scope="module")
def suspects(images) -> list[Suspect]:
    """Of four people: the second with exchanged photographs, the others with a wrong gender."""
    table, _ = dataset.read_faces(images)
    suspects = []
    for number, (folder, person) in enumerate(table.groupby("folder", observed=True)):
        gender = folder.split("_")[1]
        rows = [correction(person["person"].iloc[0], "all", "gender", gender, OTHER[gender])]
        if number == 1:
            rows = [
                correction(folder, "incorrect_mask", "mask", "incorrect", "not_worn"),
                correction(folder, "normal", "mask", "not_worn", "incorrect"),
            ]
        photographs = [(f"{folder}/{file}", f"{file.split('.')[0]}, {gender}") for file in person["file"]]
        suspects.append(
            Suspect(folder, str(person["person"].iloc[0]), gender, ("mask" if number == 1 else "gender",),
                    f"<b>{OTHER[gender]}", "so it is & no </script> way",
                    0.9 - number / 5, photographs, rows)
        )  # fmt: skip
    return suspects


@pytest.fixture(scope="module")
def thousands(suspects) -> list[Suspect]:
    """2,700 suspects, with the photographs of four people."""
    numbers = range(2700 // len(suspects))
    return [
        Suspect(f"{number}/{one.folder}", one.person, one.label, one.kinds, one.suggestion, one.evidence,
                one.probability, one.photographs,
                [row | {"person": f"{number}/{one.folder}"} for row in one.corrections])
        for number in numbers for one in suspects
    ]  # fmt: skip


def correction(*cells: str) -> dict[str, str]:
    return dict(zip(corrections.COLUMNS, [*map(str, cells), "sure", ""], strict=True))


@contextlib.contextmanager
def serving(path, suspects, images, earlier=()):
    """A server in this process."""
    decided = decisions.Decisions(path, suspects, earlier)
    page = suspects_page.render_served(path, suspects, images, "28 photographs <i>")
    with review_server.Server(decided, page, suspects_page.photographs(suspects, images), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            decided.close()


def press(shown, keys: str) -> None:
    for key in keys.split():
        shown.keyboard.press(key)


def current(shown) -> int:
    """The number of the current row, on which keys decide. It must be in sight."""
    row = shown.locator("article[aria-current=true]")
    assert row.count() == 1
    box, bar = row.bounding_box(), shown.locator("#progress").bounding_box()
    middle = box["y"] + box["height"] / 2
    assert bar["y"] + bar["height"] < middle < shown.viewport_size["height"]
    return int(row.locator("h3 span").inner_text()) - 1


def answers(shown) -> list[str | None]:
    return shown.evaluate("[...document.querySelectorAll('article')].map((row) => row.dataset.answer ?? null)")


def status(shown, text: str) -> None:
    expect(shown.locator("#status")).to_contain_text(text)
