"""Line drawings as SVG: shown in a notebook, saved as SVG or PNG."""

from dataclasses import dataclass, field
from pathlib import Path

from diffexp.errors import InputError
from diffexp.files import replace_whole, write_text

SUFFIXES = (".svg", ".png")
"""Of the files that a drawing can be saved as."""


@dataclass(frozen=True)
class Drawing:
    """A drawing; a notebook shows it."""

    svg: str = field(repr=False)
    """The text of an SVG file."""
    title: str = ""

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, file: str | Path) -> Path:
        """Write the drawing; a PNG is light and has two pixels for one unit of the drawing.

        Raises:
            InputError: the name ends in neither ``.svg`` nor ``.png``, or there is no such folder.
        """
        path = Path(file).expanduser()
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path} ends in neither {' nor '.join(SUFFIXES)}")
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}")
        if path.suffix == ".svg":
            write_text(path, self.svg)
            return path
        from diffexp.drawing.raster import rasterized

        with replace_whole(path) as temporary:
            rasterized(self.svg).save(temporary, "PNG")
        return path
