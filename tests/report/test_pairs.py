"""Which pairs of cells are compared."""

from itertools import product
from pathlib import Path

import pytest

from diffexp.report.axes import place_cells
from diffexp.report.comparison import MAX_PAIRS, choose_pairs
from diffexp.report.page import Report
from diffexp.sweeps.results import read_cells
from tests.made_up import cell_of, made_up_sweep


def test_of_very_many_pairs_those_on_one_axis_are_compared():
    few = place_cells([cell_of({"a": a, "b": b}, f"s/{a}{b}") for a, b in product(range(3), range(3))])
    assert len(choose_pairs(few, [0] * 9)[0]) == 36
    many = place_cells([cell_of({"a": a, "b": b}, f"s/{a}_{b}") for a, b in product(range(20), range(10))])
    pairs, said = choose_pairs(many, [0] * 200)
    assert len(pairs) == 10 * 190 + 20 * 45 <= MAX_PAIRS
    places = [[many.places[cell] for cell in pair] for pair in pairs]
    assert all(sum(a != b for a, b in zip(*pair)) == 1 for pair in places)
    assert "differ on one axis" in said
    line = place_cells([cell_of({"a": a}, f"s/{a}") for a in range(200)])
    assert choose_pairs(line, [0] * 200)[0] == [(i, i + 1) for i in range(199)]


def test_only_cells_of_the_same_condition_are_compared(tmp_path: Path):
    made_up_sweep(tmp_path, ["ddim", "euler"], [5], labels=[1, 2, 3])
    report = Report(read_cells(tmp_path), tmp_path / "report.html")
    pairs, said = report.pairs
    assert len(pairs) == 3 and said == "every pair of cells of the same condition"
    for _, differences in report.comparisons:
        assert [(d.first, d.second) for d in differences] == pairs
        assert max(d.p_holm for d in differences) <= 3 * max(d.p for d in differences), "three pairs, not fifteen"
        least = min(differences, key=lambda d: d.p)
        assert least.p_holm == pytest.approx(min(1.0, 3 * least.p))
    many = place_cells([cell_of({"a": a, "b": b}, f"s/{a}_{b}") for a, b in product(range(20), range(10))])
    halves = [place[0] % 2 for place in many.places]
    pairs, said = choose_pairs(many, halves)
    assert all(halves[a] == halves[b] for a, b in pairs) and len(pairs) == 2 * 10 * 45 + 20 * 45
    apart = [place[1] for place in many.places]
    pairs, said = choose_pairs(many, apart)
    assert len(pairs) == 10 * 190 and said.startswith("every pair")
