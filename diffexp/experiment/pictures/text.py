"""Text on images: fonts, and lines cut to a width."""

from PIL import ImageFont

INK, GREY, PAPER = (34, 34, 34), (118, 118, 118), (255, 255, 255)


def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, ``size`` pixels high."""
    found = ImageFont.load_default(size=size)
    assert isinstance(found, ImageFont.FreeTypeFont)  # so it is with any size given
    return found


def shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, cut and ended by an ellipsis where it is wider than ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
