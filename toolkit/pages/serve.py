"""The page that serve.py shows at /: a person drops photographs, and sees the answers."""

from collections.abc import Sequence

from toolkit.labels import CLASS_NAMES, readable
from toolkit.pages.parts import render
from toolkit.system.console import listed


def render_page(names: Sequence[str]) -> str:
    """The page as HTML. `names`: of the runs that answer."""
    data = {"classes": list(map(readable, CLASS_NAMES))}
    return render.render("serve.html", title="Mask, gender and age", runs=listed(names), data=data)
