"""The style sheets and scripts of the page."""

from importlib.resources import files

from markupsafe import Markup


def asset(name: str) -> Markup:
    """A file of ``templates/``, to be put into markup as it is."""
    return Markup((files("diffexp.report") / "templates" / name).read_text(encoding="utf-8"))
