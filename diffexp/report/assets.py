"""The style sheets and scripts of the page."""

from importlib.resources import files

from markupsafe import Markup


def asset(name: str) -> Markup:
    """A file of ``templates/``, or of the style of all drawings, to be put into markup as it is."""
    own, shared = files("diffexp.report") / "templates" / name, files("diffexp.drawing") / name
    return Markup((own if own.is_file() else shared).read_text(encoding="utf-8"))
