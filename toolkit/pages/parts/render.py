"""Pages of one file each, from templates: they need no server, no network and no other file."""

import contextlib
import functools
import pathlib

import jinja2
from PIL import Image

from toolkit import ROOT
from toolkit.data.photo_file import is_of_the_machine
from toolkit.pages.parts import pictures
from toolkit.system import files
from toolkit.system.console import say

FOLDERS = [ROOT / "toolkit" / "pages" / name for name in ("templates", "static")]  # templates include what is static


@contextlib.contextmanager
def unless_it_fails(*raised: type[Exception]):
    """Print the error of a page, and go on: a run must not fail because its page does, for a user's own model, say.

    `raised`: errors that are raised all the same. If any are given, errors of a failing disk are raised, too.
    """
    try:
        yield
    except raised:
        raise
    except Exception as error:
        if raised and isinstance(error, OSError) and is_of_the_machine(error):
            raise
        say(f"note: no report is written: {type(error).__name__}: {error}")


def write(path: pathlib.Path, template: str, **context) -> None:
    """Write a page; arguments as of `render`."""
    files.write(path, render(template, **context))


def render(template: str, **context) -> str:
    """The page as HTML. Texts in `context` are escaped, except for markupsafe.Markup, which charts are.

    Pictures are Pillow's; the filter data_uri embeds them, as mosaics where `context` has pixelate=True. A variable
    that a template needs and lacks is an error.
    """
    return _environment().get_template(template).render(**context)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDERS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {}  # jinja sorts keys, but the order of runs and photographs counts
    environment.filters["data_uri"] = _data_uri
    return environment


@jinja2.pass_context
def _data_uri(context: jinja2.runtime.Context, photo: Image.Image) -> str:
    return pictures.data_uri(pictures.pixelated(photo) if context.get("pixelate") else photo)
