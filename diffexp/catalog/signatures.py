"""Which signature each kind of plugin has, and which of its parameters are options."""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffexp.catalog.types import MISSING, UNREADABLE, Option, OptionType, plain, read_type, read_value

POSITIONAL = {
    "grid": ("schedule", "steps"),
    "loop": ("batch",),
    "guidance": ("predict", "scale"),
    "model": ("runtime",),
    "metric": (),
    "tracker": (),
}
MAY_FOLLOW = {"guidance": ("model", "levels")}
"""Positional parameters that a kind may also have, by these names; see ``further``."""
FUNCTION = ("denoise", "x", "levels", "noise")
K_DIFFUSION = ("model", "x", "sigmas")
K_DIFFUSION_IGNORED = ("extra_args", "callback", "disable", "noise_sampler")
MADE_OF = {
    "metric": "; a metric is a class with applies, update and compute, or a function of its options that makes one",
    "tracker": "; a tracker is a class, or a function of its options that makes one",
}
"""What kinds are that are not functions."""
RESERVED = {"grid": ("name", "timesteps", "sigmas")}
SCHEDULER_FORMS = (
    "a scheduler is a function (denoise, x, levels, noise, *, options), a k-diffusion sampler (model, x, sigmas, ...), "
    "a function (levels, *, options) that returns a Plan, or a class with set_timesteps and step"
)


class WrongSignature(Exception):
    """The message says what is expected."""


class NeedsImport(Exception):
    """Only importing the file tells."""


@dataclass(frozen=True)
class Parameter:
    name: str
    type: OptionType
    default: Any
    """``MISSING`` where there is none, ``UNREADABLE`` where only an import tells."""
    keyword_only: bool


@dataclass(frozen=True)
class Signature:
    parameters: tuple[Parameter, ...]
    open: bool
    """Whether it takes any keyword (``**kwargs``)."""

    def without_self(self) -> "Signature":
        return Signature(self.parameters[1:], self.open)


@dataclass(frozen=True)
class Form:
    """What was made of a signature."""

    style: str
    """``function``, ``k_diffusion``, ``plan``, or ``class`` (schedulers); ``function`` or ``class`` (other kinds)."""
    options: tuple[Option, ...]
    open: bool
    """Whether it takes options that are not listed: by ``**kwargs``, or those of a base class defined elsewhere."""


def from_ast(arguments: ast.arguments, constants: Mapping[str, ast.expr]) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    found = [
        *zip(positional, [*padding, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    parameters = []
    for index, (argument, node) in enumerate(found):
        default = MISSING if node is None else read_value(node, constants)
        kind = read_type(argument.annotation, default)
        parameters.append(Parameter(argument.arg, kind, default, index >= len(positional)))
    return Signature(tuple(parameters), arguments.kwarg is not None)


def from_object(thing: Any) -> Signature:
    """The signature of an imported function or class (then without ``self``)."""
    found = inspect.signature(thing).parameters.values()
    parameters = []
    for parameter in found:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        given = parameter.default is not parameter.empty
        default = plain(parameter.default) if given else MISSING
        kind = read_type(_annotation(parameter.annotation), default)
        parameters.append(Parameter(parameter.name, kind, default, parameter.kind is parameter.KEYWORD_ONLY))
    return Signature(tuple(parameters), any(parameter.kind is parameter.VAR_KEYWORD for parameter in found))


def form_of_function(kind: str, signature: Signature) -> Form:
    """
    Raises:
        WrongSignature: it is not one of the kind's.
    """
    positional = [parameter for parameter in signature.parameters if not parameter.keyword_only]
    names = tuple(parameter.name.lstrip("_") for parameter in positional)
    if kind != "scheduler":
        return _form(kind, "function", signature, POSITIONAL[kind])
    if names[:3] == K_DIFFUSION:
        chosen = [p for p in signature.parameters[3:] if p.name not in K_DIFFUSION_IGNORED]
        return Form("k_diffusion", _options(kind, chosen), signature.open)
    if names[:4] == FUNCTION:
        return _form(kind, "function", signature, FUNCTION)
    if names[:1] == ("levels",):
        return _form(kind, "plan", signature, ("levels",))
    raise WrongSignature(f"{SCHEDULER_FORMS}; found {_shown(signature)}")


def form_of_class(kind: str, signature: Signature | None, methods: set[str], inherits: bool) -> Form:
    """
    Args:
        signature: of ``__init__`` without self; None where a base class defined elsewhere has it.
        methods: names defined in the class.
        inherits: whether a base class defined elsewhere may add methods.

    Raises:
        WrongSignature: it is not one of the kind's.
    """
    if kind == "scheduler":
        if not inherits and not {"set_timesteps", "step"} <= methods:
            raise WrongSignature(f"{SCHEDULER_FORMS}; found a class without them")
        if signature is None:
            return Form("class", (), True)
        return Form("class", _options(kind, list(signature.parameters)), signature.open)
    if signature is None:
        return Form("class", (), True)
    return _form(kind, "class", signature, POSITIONAL[kind])


def further(kind: str, function: Any) -> list[str]:
    """Which of ``MAY_FOLLOW`` an imported function has among its positional parameters, in its order."""
    found = inspect.signature(function).parameters.values()
    positional = [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [name for name in positional[len(POSITIONAL[kind]) :] if name in MAY_FOLLOW[kind]]


def _form(kind: str, style: str, signature: Signature, expected: tuple[str, ...]) -> Form:
    positional = [parameter for parameter in signature.parameters if not parameter.keyword_only]
    if len(positional) < len(expected):  # names are free: these are passed by position
        wanted = ", ".join([*expected, "*", "options"])
        raise WrongSignature(f"a {kind} has the signature ({wanted}); found {_shown(signature)}")
    others = [p.name for p in positional[len(expected) :] if p.name not in MAY_FOLLOW.get(kind, ())]
    if others:
        raise WrongSignature(f"options of a {kind} are keyword-only: put '*' before {others[0]}{MADE_OF.get(kind, '')}")
    return Form(style, _options(kind, [p for p in signature.parameters if p.keyword_only]), signature.open)


def _options(kind: str, parameters: list[Parameter]) -> tuple[Option, ...]:
    for parameter in parameters:
        if parameter.name in RESERVED.get(kind, ("name",)):
            raise WrongSignature(f"an option of a {kind} cannot be called {parameter.name}: the config has that key")
        if parameter.default is UNREADABLE:
            raise NeedsImport
    return tuple(Option(parameter.name, parameter.type, parameter.default) for parameter in parameters)


def readable(signature: Signature) -> Signature:
    """Without the parameters whose defaults a config cannot hold (functions, tensors): they keep their defaults."""
    return Signature(tuple(p for p in signature.parameters if p.default is not UNREADABLE), signature.open)


def _annotation(annotation: Any) -> ast.expr | None:
    if annotation is inspect.Parameter.empty:
        return None
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return ast.Name("Any")


def _shown(signature: Signature) -> str:
    names: list[str] = []
    for parameter in signature.parameters:
        if parameter.keyword_only and "*" not in names:
            names.append("*")
        names.append(parameter.name)
    return f"({', '.join(names)})"
