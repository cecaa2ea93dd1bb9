"""Pages of one file each, from templates: no server, no network, nothing beside them."""

import functools
import pathlib

import jinja2

from toolkit.pages import pictures
from toolkit.system import files

TEMPLATES = pathlib.Path(__file__).parent / "templates"


def write(path: pathlib.Path, template: str, **content) -> None:
    """Write a page. Texts in `content` are escaped, but for markupsafe's Markup, such as charts.

    Pictures are Pillow's, and `|data_uri` puts them into the page.
    """
    files.write(path, render(template, **content))


def render(template: str, **content) -> str:
    """The page as `write` would write it."""
    return _templates().get_template(template).render(**content)


@functools.cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {}  # keys in their order
    templates.filters["data_uri"] = pictures.data_uri
    return templates
