"""The fingerprint of a run: all that decides its result. An unfinished run goes on only if it is the same."""

import hashlib
import os
import pathlib
import sys
from collections.abc import Iterable

from pydantic import BaseModel, Field

from toolkit import ROOT
from toolkit.system import files

# The files whose code can change a result of training: weights, decision and scores. A new file in one of these
# folders counts at once. tests/runs/test_fingerprint.py compares them with what train.py imports.
CODE = (
    "train.py", "dataset.py", "model.py", "loss.py",
    "toolkit/labels.py",  # what the classes mean
    "toolkit/data/*.py",  # pixels, and their augmentation
    "toolkit/scoring/*.py",  # which epoch is kept, and how its logits become classes
    "toolkit/label_errors/corrections.py",  # the labels
    "toolkit/backbones/*.py",  # layers, and what they start from
    "toolkit/models/*.py",  # layers, and how the CPU computes them, which changes roundings
    "toolkit/training/*.py",
    "toolkit/runs/checkpoint.py", "toolkit/runs/tensor_file.py",  # what a run goes on from
    "toolkit/runs/weights.py", "toolkit/runs/artefacts.py",  # what it writes
    "toolkit/runs/cross_validation.py",  # which folds are trained, and their common scores
    "toolkit/system/device.py",  # precision and batch sizes
    "toolkit/system/distributed.py", "toolkit/system/world.py",  # which photographs each process takes
)  # fmt: skip
OURS = ("toolkit", "tests", "benchmarks")  # our folders; modules in other folders count if they are imported
# config/ is not here: the values of all settings, defaults too, are in the fingerprint themselves. Nor are the other
# modules of runs/ and system/: they decide where files lie and when they are written, not what they hold.
NOT_CODE = (
    "inference.py", "evaluation.py", "suspects.py", "leaderboard.py",  # which train nothing themselves
    "export.py", "serve.py", "deployment.py",
    "toolkit/*/__init__.py",  # a docstring each
    "toolkit/data/checks.py",
    "toolkit/models/onnx_*.py",  # for export.py and inference.py
    "toolkit/scoring/pooling.py",
    "toolkit/scoring/submission.py",  # for inference.py and evaluation.py
    "toolkit/training/lr_finder.py",  # it trains, but nothing of it is kept
)  # fmt: skip


class Fingerprint(BaseModel):
    """A fingerprint as files hold it: folds.json, for example."""

    settings: dict
    photographs: str = ""
    weights: str = ""
    code: dict[str, str] = Field({})


def make_fingerprint(settings: dict, photographs: str, weights: str = "") -> dict:
    """The fingerprint as JSON types, from settings that change the result and digests of photographs and WEIGHTS.

    To these it adds digests of the code.
    """
    code = digests((set(matching(CODE)) | _modules_beside()) - set(matching(NOT_CODE)))
    return {"settings": settings, "photographs": photographs, "weights": weights, "code": code}


def _modules_beside() -> set[str]:
    """Imported modules that users have added to this repository: nets that model.py takes, say.

    The script that calls train.main does not count: it only gives the settings.
    """
    found = [getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if name != "__main__"]
    # Most of the thousands of files belong to packages: resolving their paths would only take time.
    paths = {pathlib.Path(file).resolve() for file in found if file and "site-packages" not in file}
    # Python itself does not count if it lies here: in a conda environment, or in a container whose code is in /.
    pythons = {pathlib.Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}
    pythons = {prefix for prefix in pythons if prefix.is_relative_to(ROOT)}
    paths = {path for path in paths if pythons.isdisjoint(path.parents)}
    own = [path.relative_to(ROOT) for path in paths if path.is_relative_to(ROOT) and path.is_file()]
    return {path.as_posix() for path in own if path.parts[0] not in OURS}


def is_record_of(record: dict, fingerprint: dict) -> bool:
    """Whether `record`, the content of a settings.json, belongs to a run with this fingerprint.

    The record also has settings that are `runtime_only`; they are not compared.
    """
    settings = {key: value for key, value in record["settings"].items() if key in fingerprint["settings"]}
    return not differences({**record, "settings": settings}, fingerprint)


def matching(patterns: Iterable[str]) -> list[str]:
    """The files of this repository that match any of the patterns: paths below its root, sorted."""
    return sorted({path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)})


def digests(paths: Iterable[str]) -> dict[str, str]:
    """{path: the first 16 hexadecimal digits of its SHA-256} of files of this repository."""
    return {path: hashlib.sha256((ROOT / path).read_bytes()).hexdigest()[:16] for path in sorted(paths)}


def digest_files(folders: Iterable[pathlib.Path], tables: Iterable[pathlib.Path]) -> str:
    """A digest of all files in these folders (path, content) and of these tables (content)."""
    digest = hashlib.sha256()
    for folder in folders:
        for path, below, names in os.walk(folder, followlinks=True):
            below.sort()  # os.walk follows this order; without it the disk decides
            for name in sorted(names):
                line = f"{os.path.relpath(path, folder)}/{name}"
                if os.path.isfile(file := os.path.join(path, name)):  # no broken link, and no pipe
                    line += f" {files.sha256(file)}"  # not size and time: copying tools keep the time
                digest.update(os.fsencode(line) + b"\n")
    for file in tables:
        digest.update(b"\n" + (file.read_bytes() if file.is_file() else b""))
    return digest.hexdigest()


def differences(before: dict, now: dict) -> list[str]:
    """What differs between two fingerprints, each as a phrase for a message; [] if they are the same."""
    settings = [before.get("settings", {}), now["settings"]]
    code = [before.get("code", {}), now["code"]]
    found = [
        f"{key.upper()} is {settings[1].get(key)}, was {settings[0].get(key)}"
        for key in dict.fromkeys([*settings[1], *settings[0]])
        if settings[0].get(key) != settings[1].get(key)
    ]
    if before.get("photographs") != now["photographs"]:
        found.append("the photographs or their labels have changed")
    if before.get("weights", "") != now.get("weights", ""):
        found.append("the file of WEIGHTS has changed")
    changed = [path for path in dict.fromkeys([*code[1], *code[0]]) if code[0].get(path) != code[1].get(path)]
    return found + [f"{path} has changed" for path in changed]
