"""Options of a plugin: name, type and default, read from a signature.

Types are read from annotations as written (``int | None``, ``Literal["midpoint", "heun"]``, ``list[float]``) without an
import; any other annotation is ``any``.
"""

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

MISSING = "???"
"""The default of an option that must be given; OmegaConf's own mark."""

UNREADABLE = object()
"""Placeholder for a default that cannot be read without importing the file, or that a config cannot hold."""

SCALARS = {"int": "an integer", "float": "a number", "number": "a number", "bool": "true or false", "str": "a string"}
LISTS = {"list": "list", "List": "list", "Sequence": "list", "tuple": "tuple", "Tuple": "tuple"}


@dataclass(frozen=True)
class OptionType:
    """The type of an option's values."""

    base: str
    """A key of ``SCALARS``, or ``text`` (a string or several), ``list``, ``tuple``, ``literal``, ``any``."""
    optional: bool = False
    """Whether ``null`` is valid too."""
    item: "OptionType | None" = None
    """The type of a list's items."""
    choices: tuple[Any, ...] = ()
    """The values of a ``literal``."""

    def __str__(self) -> str:
        text = "|".join(str(choice) for choice in self.choices) if self.base == "literal" else self.base
        text = f"{text}[{self.item}]" if self.item else text
        return f"{text}|null" if self.optional else text

    @property
    def is_text(self) -> bool:
        """Whether a value is a text, such as a prompt, or a list of these."""
        return self.base == "text"

    def problem(self, value: Any) -> str | None:
        """Why ``value`` is not of this type, as in "is not an integer"; None where it is."""
        if value is None:
            return None if self.optional or self.base == "any" else f"is not {self._noun()}"
        if self.base in ("list", "tuple"):
            if not isinstance(value, list | tuple):
                return f"is not {self._noun()}"
            return next((f"is not {self._noun()}" for item in value if self.item and self.item.problem(item)), None)
        if self.base == "text":
            items = value if isinstance(value, list | tuple) else [value]
            return None if items and all(isinstance(item, str) for item in items) else f"is not {self._noun()}"
        if self.base == "literal":
            return None if value in self.choices else f"is not {self._noun()}{self._nearest(value)}"
        return None if _is_scalar(self.base, value) else f"is not {self._noun()}"

    def _noun(self) -> str:
        if self.base == "literal":
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        if self.base in ("list", "tuple"):
            return "a list" + (f" of {self.item}" if self.item else "")
        return "a text or a list of texts" if self.is_text else SCALARS.get(self.base, self.base)

    def _nearest(self, value: Any) -> str:
        near = get_close_matches(str(value), map(str, self.choices), n=1)
        return f"; did you mean '{near[0]}'?" if near else ""


@dataclass(frozen=True)
class Option:
    """A keyword argument of a registered function or class."""

    name: str
    type: OptionType
    default: Any = MISSING
    effective_default: Any = MISSING
    """Where null means "not given": the default of the object itself, which the model's own config may change."""

    def null_by_default(self) -> "Option":
        """The same with null for "not given", so that an explicit value differs from one that nobody gave."""
        if self.default is MISSING:
            return self
        return Option(self.name, replace(self.type, optional=True), None, effective_default=self.default)

    def problem(self, value: Any) -> str | None:
        """Why ``value`` is not valid, as in "is not an integer"; None where it is, as the default always is."""
        if type(value) is type(self.default) and value == self.default:
            return None
        return self.type.problem(value)


def is_missing(value: Any) -> bool:
    """Whether a value is OmegaConf's mark for one that must be given."""
    return isinstance(value, str) and value == MISSING


def read_type(annotation: ast.expr | None, default: Any) -> OptionType:
    """The type of an annotation; without one, that of the default."""
    if annotation is None:
        return _type_of(default)
    found = _parse(annotation)
    return replace(found, optional=True) if default is None else found


def read_value(node: ast.expr, constants: Mapping[str, ast.expr]) -> Any:
    """The value of a default: a literal, a module-level constant, plain arithmetic of these, or infinity.

    Returns ``UNREADABLE`` for anything else.
    """
    match node:
        case ast.Constant(value):
            return UNREADABLE if isinstance(value, bytes | complex) or value is Ellipsis else value
        case ast.Name(name) if name in constants:
            return read_value(constants[name], {k: v for k, v in constants.items() if k != name})
        case ast.Attribute(attr="inf"):
            return math.inf
        case ast.Attribute(attr="pi"):
            return math.pi
        case ast.Call(func=ast.Name("float"), args=[ast.Constant(str(text))], keywords=[]):
            try:
                return float(text)
            except ValueError:
                return UNREADABLE
        case ast.List(items) | ast.Tuple(items):
            values = [read_value(item, constants) for item in items]
            return UNREADABLE if any(value is UNREADABLE for value in values) else values
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _arithmetic(lambda value: -value, read_value(operand, constants))
        case ast.BinOp(left, op, right) if type(op) in OPERATIONS:
            return _arithmetic(OPERATIONS[type(op)], read_value(left, constants), read_value(right, constants))
    return UNREADABLE


def to_containers(value: Any) -> Any:
    """Mappings as dicts, and lists, tuples, arrays and other iterables as lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: to_containers(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [to_containers(item) for item in value]
    return value


def config_value(value: Any) -> Any:
    """The default of an imported object as YAML holds it; ``UNREADABLE`` where YAML cannot."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        values = [config_value(item) for item in value]
        return UNREADABLE if any(item is UNREADABLE for item in values) else values
    return UNREADABLE


OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}


def _arithmetic(operation: Callable[..., Any], *values: Any) -> Any:
    if not all(isinstance(value, int | float) for value in values):
        return UNREADABLE
    try:
        return operation(*values)
    except ArithmeticError:
        return UNREADABLE


def _is_scalar(base: str, value: Any) -> bool:
    if base == "int":
        return isinstance(value, Integral) and not isinstance(value, bool)
    if base in ("float", "number"):
        return isinstance(value, Real) and not isinstance(value, bool) and value == value  # NaN is not itself
    if base == "bool":
        return isinstance(value, bool)
    return base != "str" or isinstance(value, str)


def _type_of(default: Any) -> OptionType:
    if isinstance(default, bool):
        return OptionType("bool")
    if isinstance(default, int | float):
        return OptionType("number" if isinstance(default, int) else "float")  # `eta=1` often means 1.0
    if isinstance(default, str) and default != MISSING:
        return OptionType("str")
    if isinstance(default, list | tuple):
        return OptionType("list")
    return OptionType("any", optional=True)


def _parse(node: ast.expr) -> OptionType:
    match node:
        case ast.Constant(str(text)):
            try:
                return _parse(ast.parse(text, mode="eval").body)
            except SyntaxError:
                return OptionType("any", optional=True)
        case ast.Constant(None):
            return OptionType("none", optional=True)
        case ast.Name(name) | ast.Attribute(attr=name) if name in SCALARS:
            return OptionType(name)
        case ast.Name(name) | ast.Attribute(attr=name) if name in LISTS:
            return OptionType(LISTS[name])
        case ast.BinOp(left, ast.BitOr(), right):
            return _union([_parse(left), _parse(right)])
        case ast.Subscript(value=ast.Name(name) | ast.Attribute(attr=name), slice=index):
            return _parse_generic(name, index)
    return OptionType("any", optional=True)


def _parse_generic(name: str, index: ast.expr) -> OptionType:
    arguments = index.elts if isinstance(index, ast.Tuple) else [index]
    if name == "Literal" and all(isinstance(argument, ast.Constant) for argument in arguments):
        values = tuple(argument.value for argument in arguments if isinstance(argument, ast.Constant))
        return OptionType("literal", None in values, choices=tuple(value for value in values if value is not None))
    if name == "Optional":
        return replace(_parse(index), optional=True)
    if name == "Union":
        return _union([_parse(argument) for argument in arguments])
    if name in ("Annotated", "Final"):
        return _parse(arguments[0])
    if name in LISTS:
        items = {_parse(item) for item in arguments if not _is_ellipsis(item)}
        return OptionType(LISTS[name], item=items.pop() if len(items) == 1 else None)
    return OptionType("any", optional=True)


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _union(types: list[OptionType]) -> OptionType:
    optional = any(found.optional for found in types)
    kept = [found for found in types if found.base != "none"]
    bases = {found.base for found in kept}
    if len(kept) == 1:
        return replace(kept[0], optional=optional)
    if bases == {"str", "list"} and all(found.item in (None, OptionType("str")) for found in kept):
        return OptionType("text", optional)
    if bases == {"int", "float"}:
        return OptionType("number", optional)
    if bases == {"literal"}:
        return OptionType("literal", optional, choices=tuple(choice for found in kept for choice in found.choices))
    return OptionType("any", optional=True)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; lists are unchanged."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
