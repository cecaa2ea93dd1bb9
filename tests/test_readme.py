import re

import readme

from toolkit.config.settings import SCRIPTS

TEXT = readme.README.read_text()


def test_the_settings_tables_are_those_of_the_settings():
    assert readme.rewritten(TEXT) == TEXT, "run `make readme`"


def test_every_command_names_settings_that_exist():
    commands = re.findall(r"^    (.*)python (\w+\.py)(.*)$", TEXT, re.M)
    assert {script for _, script, _ in commands} >= set(SCRIPTS)
    for variables, script, flags in commands:
        if script in SCRIPTS:
            names = re.findall(r"(\w+)=", variables) + re.findall(r"--(\w+)", flags)
            known = {*SCRIPTS[script].model_fields, "torch_home", "help"}
            assert {name.lower() for name in names} <= known, script


def test_files_and_folders_that_are_named_are_there():
    for name in re.findall(r"\]\(([\w./-]+)\)", TEXT):
        assert (readme.ROOT / name).exists(), name
