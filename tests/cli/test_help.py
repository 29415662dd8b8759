"""``--help`` on terminals of different widths."""

import pytest
from rich.console import Console

from diffexp.catalog.discover import discover
from diffexp.cli.help import help_page, help_text


@pytest.mark.parametrize("width", [80, 160])
def test_it_fits_the_terminal(width: int) -> None:
    catalog = discover()
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(help_page(catalog))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert max(map(len, lines)) <= width
    assert "".join("".join(lines).split()) == "".join(help_text(catalog).split()), "nothing is cut"
    first = next(i for i, line in enumerate(lines) if line.startswith("  num_samples=null"))
    assert lines[first][2:].index("  null:") == 23 and (width > 80 or lines[first + 1].index("else 64") == 27)
