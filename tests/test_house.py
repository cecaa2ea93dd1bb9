"""The shape of the repository: what stands on what, and what importing costs."""

import ast
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, run_script

from toolkit.config import sources
from toolkit.config.settings import SCRIPTS

MIDDLE = ("dataset", "model", "loss")
FLOOR = {path.stem: 2 if path.stem in MIDDLE else 3 for path in ROOT.glob("*.py")}
SOURCES = [*ROOT.glob("*.py"), *ROOT.glob("toolkit/**/*.py")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_only(path):
    floor = FLOOR[path.stem] if path.parent == ROOT else 1
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert FLOOR.get(name, 0) < floor, f"line {node.lineno} imports {name}"
            # What changes a result stands on no page: runs.CODE leaves pages out.
            assert not (
                path.parent.name != "pages"
                and path.parent.parent.name == "toolkit"
                and name.startswith("toolkit.pages")
            ), f"line {node.lineno}"


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
    done = run_script(script, "--help")
    assert done.returncode == 0 and done.stderr == ""
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
    done = run_script(script, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1", **settings)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == status and "toolkit.config.settings" in imported
    assert not imported & {"torch", "pandas", "torchvision"}
