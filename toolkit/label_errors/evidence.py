"""What may be wrong with labels, from what nets say that never saw these people.

All photographs of a person share gender and age, so what the nets say of them adds up; and which of them shows which
mask is known, so that two exchanged ones give each other away. No tool that looks at photographs one by one sees that.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from toolkit.label_errors import noise
from toolkit.labels import AGE_FROM_YEARS, ATTRIBUTES
from toolkit.scoring import metrics

KINDS = ("gender", "age", "mask", "twin")
EXCHANGED = {"incorrect_mask": (1, 2), "normal": (2, 1)}  # the photographs that people exchange: own state, the other's
LOOKS = 4.0  # years: the spread of how old people look around how old they are
LEAST = 1e-7  # no net is surer of a photograph, whatever it says


@dataclass(frozen=True)
class Finding:
    """Something that may be wrong with the labels of one folder: what is likeliest of its kind."""

    folder: str
    kind: str  # one of KINDS
    suggests: str  # "male"
    nats: float  # by how much the photographs fit that better than what the folder says
    probability: float  # that anything of this kind is wrong
    corrections: list[dict[str, str]]  # rows of a table of corrections, if it is what is suggested
    beside: str = ""  # another folder that one must see to tell


def find(faces: pd.DataFrame, p: np.ndarray) -> list[Finding]:
    """What may be wrong with gender, age band and masks of each folder: a finding of each kind.

    `faces` is the table as `dataset.read_faces` and then `with_names` give it, or some rows of it; `p`, shape (n, 18),
    has the probabilities of its photographs by nets that never saw the person.
    """
    log_p = {name: np.log(np.maximum(p @ metrics.members(name), LEAST)) for name in ATTRIBUTES}
    codes, first = _folders(faces)
    of_people = [_of_people(faces, codes, first, kind, log_p[kind]) for kind in ("gender", "age")]
    return [*itertools.chain(*of_people), *_of_masks(faces, codes, log_p["mask"])]


def find_twins(faces: pd.DataFrame, store) -> list[Finding]:
    """Folders whose photographs are those of one before: `store` has the pixels of the table's photographs."""
    from toolkit.label_errors import duplicates  # and with it torch

    codes, first = _folders(faces)
    found = duplicates.find(store, codes, faces["photograph"].to_numpy(), first["person"].to_numpy())
    return [
        Finding(
            folder=row.folder,
            kind="twin",
            suggests=f"the photographs are those of {first['folder'].iloc[other]}: leave these out",
            nats=float(nats),
            probability=float(chance),
            corrections=[_correction(row, "all", "leave_out", "no", "yes", f"as {first['folder'].iloc[other]}")],
            beside=first["folder"].iloc[other],
        )
        for row, other, chance, nats in zip(first.itertuples(), *found, strict=True)
    ]


def with_names(faces: pd.DataFrame) -> pd.DataFrame:
    """The whole table of faces, with what a table of corrections calls each person, in the column `called`.

    A folder that is renamed, as its label is put right, keeps its id; somebody with two folders needs their names.
    """
    several = faces.groupby("person", observed=True)["folder"].transform("nunique") > 1
    return faces.assign(called=np.where(several, faces["folder"].astype(str), faces["person"].astype(str)))


def words(value: str) -> str:
    """As a person reads it."""
    return value.replace("_", " ")


def _folders(faces: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """The number of each row's folder, and a row of each folder."""
    codes = pd.factorize(faces["folder"])[0]
    return codes, faces.iloc[np.unique(codes, return_index=True)[1]]


def _of_people(faces, codes: np.ndarray, first, kind: str, log_p: np.ndarray) -> list[Finding]:
    """Gender or age band, which all photographs of a folder share."""
    values, given = ATTRIBUTES[kind], first[kind].to_numpy()
    said = np.eye(len(values))[given]
    total = np.stack([np.bincount(codes, column) for column in log_p.T], 1)
    common, log_common = _common(faces[kind], len(values))
    # How common a value is counts once, and not for each photograph again.
    evidence = total - np.bincount(codes)[:, None] * log_common
    honest = said
    if kind == "age":  # somebody of 29 may well look thirty: nearer ages are weaker evidence
        honest = np.array([_bands_of(years) or row for years, row in zip(first["years"], said, strict=True)])
    chances = noise.wrong(evidence, common, honest, noise.fit(evidence, common, honest)) * (1 - said)
    found = zip(first.itertuples(), given, (chances - said).argmax(1), total, chances.sum(1), strict=True)
    return [
        Finding(
            folder=row.folder,
            kind=kind,
            suggests=words(values[other]),
            nats=float(nats[other] - nats[own]),
            probability=float(chance),
            corrections=[_correction(row, "all", kind, _as_given(row, kind), values[other])],
        )
        for row, own, other, nats, chance in found
    ]


def _of_masks(faces, codes: np.ndarray, log_p: np.ndarray) -> list[Finding]:
    """The best other assignment of each folder's files: two exchanged, or one that shows another state."""
    nats, exchanged = _exchanged(faces, codes, log_p)
    given = faces["mask"].to_numpy()
    said = np.eye(len(ATTRIBUTES["mask"]))[given]
    common, log_common = _common(given, said.shape[1])
    evidence = log_p - log_common
    chances = noise.wrong(evidence, common, said, noise.fit(evidence, common, said)) * (1 - said)
    odds = _odds(chances.sum(1))[:, None] * chances / np.maximum(chances.sum(1, keepdims=True), 1e-300)
    of_folder = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    found = []
    for code, rows in enumerate(of_folder):
        against = _odds(exchanged[code]) + odds[rows].sum()
        probability = float(against / (1 + against))
        if _odds(exchanged[code]) > odds[rows].max():
            found.append(_exchange(faces.iloc[rows], float(nats[code]), probability))
        else:
            place, state = np.unravel_index((odds[rows] - said[rows]).argmax(), (len(rows), len(common)))
            more = log_p[rows[place], state] - log_p[rows[place], given[rows[place]]]
            found.append(_other_state(faces.iloc[rows[[place]]], state, float(more), probability))
    return found


def _exchanged(faces, codes: np.ndarray, log_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much each folder's two photographs fit each other's state better, and how likely they are exchanged.

    Shapes (folders,); 0 where either is missing.
    """
    gains, there = np.zeros(len(faces)), np.ones(codes.max() + 1, bool)
    for photograph, (own, other) in EXCHANGED.items():
        rows = (faces["photograph"] == photograph).to_numpy()
        gains[rows] = log_p[rows, other] - log_p[rows, own]
        there &= np.bincount(codes, rows) > 0
    nats, chances = np.where(there, np.bincount(codes, gains), 0.0), np.zeros(len(there))
    evidence, named = np.stack([np.zeros(there.sum()), nats[there]], 1), np.tile([1.0, 0.0], (there.sum(), 1))
    # Beside each pair the same pair with its names exchanged: so both orders are equally common, as `noise` wants them.
    both, honest = (np.concatenate([some, some[:, ::-1]]) for some in (evidence, named))
    equal = np.full(2, 0.5)
    chances[there] = noise.wrong(both, equal, honest, noise.fit(both, equal, honest))[: len(evidence), 1]
    return nats, chances


def _exchange(rows, nats: float, probability: float) -> Finding:
    values = ATTRIBUTES["mask"]
    corrections = [
        _correction(row, row.photograph, "mask", *(values[state] for state in EXCHANGED[row.photograph]), "exchanged")
        for row in rows.itertuples()
        if row.photograph in EXCHANGED
    ]
    suggests = f"{words(' and '.join(EXCHANGED))} exchanged"
    return Finding(rows["folder"].iloc[0], "mask", suggests, nats, probability, corrections)


def _other_state(one, state: int, nats: float, probability: float) -> Finding:
    """Of a table with the row of one photograph."""
    row, values = next(one.itertuples()), ATTRIBUTES["mask"]
    corrections = [_correction(row, row.photograph, "mask", values[row.mask], values[state])]
    suggests = words(f"{row.photograph} {values[state]}")
    return Finding(row.folder, "mask", suggests, nats, probability, corrections)


def _common(given, values: int) -> tuple[np.ndarray, np.ndarray]:
    """How common each value is among photographs, and its logarithm; 0 for one that nobody has."""
    common = np.bincount(given, minlength=values) / len(given)
    return common, np.log(np.where(common > 0, common, 1.0))


def _odds(chance):
    return chance / np.maximum(1 - chance, 1e-12)


def _correction(row, photograph: str, field: str, given: str, correct: str, note: str = "") -> dict[str, str]:
    """A row of a table of corrections; of a single photograph, with the path of its `file` below the image folder."""
    file = {} if photograph == "all" else {"file": f"{row.folder}/{row.file}"}
    return file | {
        "person": row.called,
        "photograph": photograph,
        "field": field,
        "given": given,
        "correct": correct,
        "certainty": "sure",
        "note": note,
    }


def _as_given(row, kind: str) -> str:
    """What the folder says, as a table of corrections says it."""
    if kind == "age" and not math.isnan(row.years):
        return f"{row.years:.0f}"
    return ATTRIBUTES[kind][getattr(row, kind)]


def _bands_of(years: float) -> list[float] | None:
    """How likely somebody of that age looks each band; None where it is not known."""
    if math.isnan(years):
        return None
    below = [0.5 * (1 + math.erf((first - 0.5 - years) / (LOOKS * math.sqrt(2)))) for first in AGE_FROM_YEARS]
    return np.diff([0.0, *below, 1.0]).tolist()
