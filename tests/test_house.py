"""The shape of the repository: what stands on what, and what importing costs."""

import ast
import graphlib
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, run_script, succeeded
from imports import imported, names_in, used_names

from toolkit.config import sources
from toolkit.config.settings import SCRIPTS
from toolkit.runs.fingerprint import make_fingerprint

# Each imports from those before it only: so no two of them import each other. Of toolkit/ these are its folders.
FLOORS = (
    "labels.py", "system", "config", "demo", "data", "scoring", "label_errors", "runs", "backbones", "models",
    "training", "serving", "pages",
    ("dataset.py", "model.py", "loss.py"),
    ("train.py", "inference.py", "evaluation.py", "suspects.py", "leaderboard.py", "export.py", "serve.py"),
    ("deployment.py",),
)  # fmt: skip
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in ([names] if isinstance(names, str) else names)}
SOURCES = [*ROOT.glob("*.py"), *ROOT.glob("toolkit/**/*.py")]
CHANGES_NO_RESULT = ("pages", "serving", "demo")


def floor(path) -> int:
    parts = path.relative_to(ROOT).parts
    return -1 if parts == ("toolkit", "__init__.py") else FLOOR[parts[1] if parts[0] == "toolkit" else parts[0]]


def name_of(path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_down_only(path):
    """Also imports inside functions and for type checkers. A folder may import from folders inside it."""
    for line, other in imported(path):
        same_folder = path.parent != ROOT and other.is_relative_to(path.parent)
        assert same_folder or floor(other) < floor(path), f"line {line} imports {name_of(other)}"


def test_no_modules_import_each_other_in_a_circle():
    graphlib.TopologicalSorter({path: {other for _, other in imported(path)} for path in SOURCES}).prepare()


@pytest.mark.parametrize("name", [name for name in make_fingerprint({}, "")["code"] if name.startswith("toolkit/")])
def test_what_can_change_a_result_stands_on_nothing_that_may_change_freely(name):
    """The fingerprint of a run leaves these folders out."""
    for line, other in imported(ROOT / name):
        assert other.relative_to(ROOT).parts[1] not in CHANGES_NO_RESULT, f"line {line} imports {name_of(other)}"


@pytest.mark.parametrize("path", [*SOURCES, *ROOT.glob("benchmarks/*.py"), *ROOT.glob("docs/*.py")], ids=name_of)
def test_every_name_that_is_taken_from_a_module_is_there(path):
    """Also in benchmarks, which nothing else runs, and between them."""
    for line, other, name in used_names(path):
        assert name in names_in(other), f"line {line}: {name_of(other)} has no {name}"


def test_every_package_that_is_imported_is_in_the_requirements():
    """The tests' packages install others, which a fresh installation lacks."""
    brought_along = {"markupsafe", "huggingface_hub", "sagemaker_inference"}  # by jinja2, timm, SageMaker's images
    named = "".join((ROOT / name).read_text() for name in ("requirements.txt", "requirements-extras.txt"))
    packages = {name.replace("-", "_") for name in re.findall(r"^[\w-]+", named, re.M)} | {"PIL", *brought_along}
    nodes = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    own = {"toolkit", *(path.stem for path in ROOT.glob("*.py"))}
    assert {name.partition(".")[0] for name in modules} - own - sys.stdlib_module_names <= packages


def test_one_place_opens_photographs():
    """It names the formats and limits. Else Pillow would run a PostScript program named mask1.jpg in Ghostscript."""
    opens = re.compile(r"\bImage\.open\(|\bopen_image\(|from PIL\.Image import")
    found = {name_of(path): opens.findall(path.read_text()) for path in SOURCES}
    assert {name: calls for name, calls in found.items() if calls} == {"toolkit/data/photo_file.py": ["Image.open("]}
    assert "formats=" in (ROOT / "toolkit" / "data" / "photo_file.py").read_text()


def test_one_place_finds_the_root_of_the_repository():
    up = re.compile(r"__file__.*\bparents?\b.*\bparents?\b|__file__.*\bparents\b")
    assert [name_of(path) for path in SOURCES if up.search(path.read_text())] == ["toolkit/__init__.py"]


def test_the_init_files_of_folders_hold_a_sentence_and_no_code():
    """Fingerprints leave them out, and importing a module should not import its neighbours."""
    for path in ROOT.glob("toolkit/*/__init__.py"):
        assert re.fullmatch(r'"""[^"]+"""\n', path.read_text()), name_of(path)


@pytest.mark.parametrize("module", [path.stem for path in ROOT.glob("*.py")])
def test_importing_has_no_side_effect_and_waits_for_nothing_slow(module, tmp_path):
    code = (
        f"import sys; sys.argv = ['x', '--nonsense']; import {module}; print({{'torch', 'pandas'}} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "epochs": "no"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "set()\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_every_setting(script):
    done = succeeded(run_script(script, "--help", python=sys.executable))
    assert done.stderr == ""
    for name in sources.own_fields(SCRIPTS[script]):
        assert f"`{name.upper()}`" in done.stdout


@pytest.mark.parametrize(
    ("script", "settings", "status"),
    [
        ("train.py", {"epochs": "x", "NAME": "resnet19", "LOSS": "focl"}, 2),
        ("train.py", {"SM_CHANNEL_TRAIN": "/nowhere", "SM_MODEL_DIR": "/nowhere"}, 2),
        ("inference.py", {"SM_CHANNEL_EVAL": "/nowhere"}, 2),
        ("evaluation.py", {}, 0),
    ],
)
def test_answers_that_need_neither_torch_nor_pandas_do_not_wait_for_them(script, settings, status, drawn, tmp_path):
    if not settings:
        shutil.copy(drawn.eval / "gt.csv", tmp_path / "output.csv")
        settings = {"SM_GROUND_TRUTH_DIR": drawn.eval, "SM_OUTPUT_DATA_DIR": tmp_path}
    done = run_script(script, cwd=tmp_path, python=sys.executable, PYTHONPROFILEIMPORTTIME="1", **settings)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == status and "toolkit.config.settings" in imported
    assert not imported & {"torch", "pandas", "torchvision"}
