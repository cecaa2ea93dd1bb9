"""README.md, CONTRIBUTING.md and docs/*.md: what they name is there, and scripts take the command lines they show."""

import re
import shlex
import textwrap
from typing import Annotated

import pytest
import settings_page
from pydantic import TypeAdapter, ValidationError
from settings_page import ROOT

import train
from toolkit.config.settings import SCRIPTS

README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
PAGES = [README, CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md"))]
MOST_WORDS = 2000  # of the README
# Variables that are no settings: of Python's packages, of torchrun, of SageMaker, and of the tests.
OTHER_VARIABLES = {
    "torch_home", "hf_home", "tmpdir", "omp_num_threads", "rank", "world_size", "no_skips", "pythonpath",
    "sm_rayserve_app",
}  # fmt: skip
REPOSITORY_PATH = re.compile(r"(?:(?:toolkit|tests|benchmarks|docs|\.ci)/[\w./-]*|\w+\.py|\w+\.toml|outliers\.csv)")
EVERYTHING = {name: field for cls in SCRIPTS.values() for name, field in cls.model_fields.items()}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def test_the_settings_page_is_that_of_the_settings():
    assert settings_page.PAGE.read_text() == settings_page.text(), "run `make docs`"


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= MOST_WORDS


@pages
def test_every_command_line_is_one_that_its_script_takes(page):
    for line in command_lines(page):
        script, given = parsed(line)
        assert (ROOT / script).is_file(), line
        if script in SCRIPTS:
            for name, value in given.items():
                refuse_wrong(SCRIPTS[script].model_fields, name, value, line)
        elif script.startswith("benchmarks/"):
            source = (ROOT / script).read_text()
            assert all(f'"--{name}"' in source for name in given), line


@pages
def test_every_command_line_in_a_block_sets_all_folders_of_its_script_or_none(page):
    for line in lines_of_blocks(page.read_text()):
        script, given = parsed(line)
        if script in SCRIPTS:
            folders = set(SCRIPTS[script].FOLDERS)
            assert folders & set(given) in (set(), folders), line


def test_the_way_to_a_submission_sets_folders_in_every_line():
    _, _, rest = README.read_text().partition("## From nothing to a submission\n")
    lines = lines_of_blocks(rest.partition("\n## ")[0])
    assert {parsed(line)[0] for line in lines} >= {"dataset.py", "train.py", "inference.py", "evaluation.py"}
    for line in lines:
        script, given = parsed(line)
        assert set(SCRIPTS[script].FOLDERS) <= set(given), line


def test_every_script_is_shown_in_a_command_line():
    assert {parsed(line)[0] for page in PAGES for line in lines_of_blocks(page.read_text())} >= set(SCRIPTS)


@pages
def test_every_setting_that_is_named_with_a_value_takes_it(page):
    for span in code_spans(page.read_text()):
        if "python " not in span:
            for name, value in re.findall(r"(?<![\w.-])([A-Z][A-Z_]+|epochs)=(\S*)", span):
                refuse_wrong(EVERYTHING, name.lower(), value, span)


@pages
def test_every_target_of_make_exists(page):
    targets = set(re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.M)[1].split())
    text = page.read_text()
    named = re.findall(r"^ {4}make (\w+)", text, re.M) + re.findall(r"`make (\w+)", text)
    assert set(named) <= targets


@pages
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        path, _, anchor = target.partition("#")
        if "://" not in path:
            file = (page.parent / path) if path else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file.read_text()), target


@pages
def test_every_path_that_is_named_exists(page):
    for span in code_spans(page.read_text()):
        if REPOSITORY_PATH.fullmatch(span):
            assert (ROOT / span).exists(), span


def test_what_the_readme_says_to_change_is_in_the_files_that_it_names():
    _, _, rest = README.read_text().partition("## Change it\n")
    for row in re.findall(r"^\| .* \|$", rest.partition("\n## ")[0], re.M):
        files = [ROOT / name for name in re.findall(r"[`(]([\w/]+\.py)[`)]", row)]
        for name in re.findall(r"`([A-Z_]{3,}|[a-z]+_[a-z]+)`", row):
            assert any(re.search(rf"\b{name}\b", file.read_text()) for file in files), name


@pages
def test_python_blocks_compile(page):
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S):
        compile(textwrap.dedent(block), page.name, "exec")


def test_the_tree_of_contributing_names_every_module_of_the_toolkit():
    text = CONTRIBUTING.read_text()
    rows = re.findall(r"^ {6}(\w+)/ +((?:\w+, )*\w+)$", text, re.M)
    found = {folder.parent.name: set() for folder in (ROOT / "toolkit").glob("*/__init__.py")}
    for name in found:
        found[name] = {path.stem for path in (ROOT / "toolkit" / name).glob("*.py")} - {"__init__"}
    assert found.pop("pages") and re.search(r"^ {6}pages/", text, re.M)
    assert {name: set(modules.split(", ")) for name, modules in rows} == found


def test_the_tree_of_contributing_names_every_script():
    assert {path.name for path in ROOT.glob("*.py")} <= set(CONTRIBUTING.read_text().split())


def command_lines(page) -> list[str]:
    text = page.read_text()
    spans = [span for span in code_spans(text) if re.search(r"\bpython \S+\.py", span)]
    return lines_of_blocks(text) + spans


def lines_of_blocks(text: str) -> list[str]:
    """The lines of indented blocks that start a script, by python or torchrun."""
    return re.findall(r"^ {4}(?! )((?:\S+ )*?(?:\S*python|torchrun) .*?\.py\b.*)$", text, re.M)


def parsed(line: str) -> tuple[str, dict[str, str]]:
    """The script of a command line, and {setting: value} by variables and flags."""
    words = shlex.split(line, comments=True)
    number = next(number for number, word in enumerate(words) if word.endswith(".py"))
    variables = [word.partition("=")[::2] for word in words[:number] if re.match(r"\w+=", word)]
    given = {name.lower(): value for name, value in variables}
    flag = None
    for word in words[number + 1 :]:
        if word.startswith("--"):
            flag, _, value = word[2:].partition("=")
            flag = flag.replace("-", "_").lower()
            given[flag] = value
        else:
            if flag is None and words[number] == "inference.py":  # a photograph
                continue
            assert flag, f"{line}: {word} is no flag"
            given[flag] = f"{given[flag]} {word}".strip()
    return words[number], given


def refuse_wrong(fields: dict, name: str, value: str, where: str) -> None:
    """Assert that there is such a setting and that it takes the value; whether folders and files exist is not asked."""
    if name in OTHER_VARIABLES or name == "help":
        return
    assert name in fields, f"{where}: {name} is no setting"
    names = train.CHOICES.get(name)
    if names and name == "loss":
        assert value in names, where
    elif value and "pathlib" not in str(fields[name].annotation) and name not in ("relabel", "weights"):
        try:
            TypeAdapter(Annotated[fields[name].annotation, fields[name]]).validate_python(value)
        except ValidationError as error:
            raise AssertionError(f"{where}: {error}") from None


def without_code(text: str) -> str:
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ {4}.*$", "", text, flags=re.M))


def code_spans(text: str) -> list[str]:
    """What stands between backticks in a line, outside of blocks of code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ {4}.*$", "", text, flags=re.M))


def anchors(text: str) -> set[str]:
    """Those of a page's headings, as GitHub makes them."""
    found, seen = set(), {}
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(slug if slug not in seen else f"{slug}-{seen[slug]}")
        seen[slug] = seen.get(slug, 0) + 1
    return found
