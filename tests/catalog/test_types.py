"""Types and defaults, read as they are written."""

import ast
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

import diffexp
from diffexp.catalog.types import UNREADABLE, OptionType, config_value, read_type, read_value
from diffexp.components.schedulers.ddim import ddim
from diffexp.errors import InputError


def type_of(text: str, default: object = "???") -> OptionType:
    return read_type(ast.parse(text, mode="eval").body, default)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("int", "int"),
        ("int | None", "int|null"),
        ("Optional[float]", "float|null"),
        ("typing.Union[str, None]", "str|null"),
        ("int | float", "number"),
        ("Literal['a', 'b', None]", "a|b|null"),
        ("Literal['a'] | Literal[1]", "a|1"),
        ("list[int]", "list[int]"),
        ("Sequence[float] | None", "list[float]|null"),
        ("tuple[int, ...]", "tuple[int]"),
        ("tuple[int, str]", "tuple"),
        ("'bool | None'", "bool|null"),
        ("Annotated[int, 'positive']", "int"),
        ("torch.Tensor", "any|null"),
        ("int | str", "any|null"),
        ("'not python ('", "any|null"),
    ],
)
def test_annotations(text, shown):
    assert str(type_of(text)) == shown


@pytest.mark.parametrize(
    ("text", "good", "bad", "problem"),
    [
        ("int", [1, -3], [True, 1.5, "1", None], "is not an integer"),
        ("float", [1, 1.5, math.inf], [True, "x", None], "is not a number"),
        ("bool | None", [True, None], [1, "true"], "is not true or false"),
        ("Literal['a', 2]", ["a", 2], ["b", None], "is not one of a, 2"),
        ("list[int]", [[], [1]], [1, ["a"], "ab"], "is not a list of int"),
        ("tuple[float, ...] | None", [[1.0], (1,), None], [3, [None]], "is not a list of float"),
        ("object", [None, 1, "a", []], [], ""),
    ],
)
def test_values_of_a_type(text, good, bad, problem):
    kind = type_of(text)
    assert [kind.problem(value) for value in good] == [None] * len(good)
    assert [kind.problem(value) for value in bad] == [problem] * len(bad)


@pytest.mark.parametrize(
    ("scheduler", "options", "told"),
    [
        ("ddim", {"eta": "x"}, "scheduler.eta=x is not a number"),
        ("deis", {"order": 5}, "scheduler.order=5 is not one of 1, 2, 3"),
        ("dpmpp_2m", {"solver_type": "huen"}, "is not one of midpoint, heun; did you mean 'heun'?"),
        ("diffusers/unipc", {"solver_type": "bh3"}, "is not one of bh1, bh2; did you mean 'bh2'?"),
        (ddim, {"eta": None}, "scheduler.eta=null is not a number"),
        (ddim, {"etta": 1}, "unknown option 'scheduler.etta' of ddim; did you mean 'scheduler.eta'?"),
    ],
)
def test_options_from_python_are_checked_as_on_the_command_line(scheduler, options, told):
    with pytest.raises(InputError) as caught:
        diffexp.compile(scheduler, steps=4, **options)
    assert str(caught.value).endswith(told)
    assert diffexp.compile("deis", steps=4, order=np.int64(3)).nfe == 4


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(literals)
def test_every_literal_reads_as_itself(value):
    assert read_value(ast.parse(repr(value), mode="eval").body, {}) == value
    assert config_value(value) == value


@given(literals)
def test_a_default_fits_the_type_read_from_it(value):
    assert read_type(None, value).problem(value) is None


@pytest.mark.parametrize("text", ["f()", "a.b", "1 / 0", "'a' + 'b'", "b'x'", "...", "float('x')", "CYCLE", "[f()]"])
def test_what_only_running_the_file_tells(text):
    constants = {"CYCLE": ast.Name("CYCLE")}
    assert read_value(ast.parse(text, mode="eval").body, constants) is UNREADABLE


def test_objects_that_a_config_cannot_hold():
    assert config_value(len) is UNREADABLE
    assert config_value([1, (2, len)]) is UNREADABLE
