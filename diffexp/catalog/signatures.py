"""Signatures of plugins: the conventions of each kind, and which parameters are options."""

import ast
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffexp.catalog.kinds import KINDS, Kind
from diffexp.catalog.types import MISSING, UNREADABLE, Option, OptionType, config_value, read_type, read_value

K_DIFFUSION = (
    ("model", "x", "sigmas"),
    ("model", "x", "sigma_min", "sigma_max", "n"),
    ("model", "x", "sigma_min", "sigma_max"),
)
"""First parameters of the samplers of k-diffusion: of those that visit given levels, that space ``n`` of their own, and
that choose their steps. The parameters below are set by the run, so they are not options."""
K_DIFFUSION_IGNORED = ("extra_args", "callback", "disable", "noise_sampler", "return_info")
PLAN = ("levels",)
"""The parameter of a scheduler that returns its plan."""
MODEL = "model"
"""A further parameter that such a scheduler may declare: the model, or None where only its training is known."""


class WrongSignature(Exception):
    """A function or class that does not follow the conventions of its kind; the message states them."""


class NeedsImport(Exception):
    """A file whose registrations cannot be read without importing it."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function."""

    name: str
    type: OptionType
    default: Any
    """``MISSING`` where there is none, ``UNREADABLE`` where it cannot be read without an import."""
    keyword_only: bool


@dataclass(frozen=True)
class Signature:
    """The named parameters of a function."""

    parameters: tuple[Parameter, ...]
    has_kwargs: bool
    """Whether it ends in ``**kwargs``."""

    def without_self(self) -> "Signature":
        """The signature of a bound method."""
        return Signature(self.parameters[1:], self.has_kwargs)


@dataclass(frozen=True)
class Form:
    """The calling convention of a registered object, and its options."""

    style: str
    """``function``, ``k_diffusion``, ``plan``, or ``class`` (schedulers); ``function`` or ``class`` (other kinds)."""
    options: tuple[Option, ...]
    accepts_any_option: bool
    """Whether it accepts options not listed: by ``**kwargs``, or those of a base class defined elsewhere."""


def from_ast(arguments: ast.arguments, constants: Mapping[str, ast.expr]) -> Signature:
    """The signature of a function in source text.

    Args:
        constants: values of the names defined at the top of the module.
    """
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
        default = config_value(parameter.default) if given else MISSING
        kind = read_type(_annotation(parameter.annotation), default)
        parameters.append(Parameter(parameter.name, kind, default, parameter.kind is parameter.KEYWORD_ONLY))
    return Signature(tuple(parameters), any(parameter.kind is parameter.VAR_KEYWORD for parameter in found))


def form_of_function(kind: str, signature: Signature) -> Form:
    """The form of a function of a kind.

    Raises:
        WrongSignature: the function does not follow the conventions of the kind.
        NeedsImport: the default of an option cannot be read without an import.
    """
    positional = [parameter for parameter in signature.parameters if not parameter.keyword_only]
    names = tuple(parameter.name.lstrip("_") for parameter in positional)
    own = KINDS[kind]
    if kind != "scheduler" or names[: len(own.positional)] == own.positional:
        return _form(own, "function", signature, own.positional)
    if first := k_diffusion_parameters(names):
        chosen = [p for p in signature.parameters[len(first) :] if p.name not in K_DIFFUSION_IGNORED]
        return Form("k_diffusion", _options(own, chosen), signature.has_kwargs)
    if names[: len(PLAN)] == PLAN:
        return _form(replace(own, injectable=(MODEL,)), "plan", signature, PLAN)
    raise WrongSignature(f"{own.explanation}; found {_shown(signature)}")


def k_diffusion_parameters(names: Sequence[str]) -> tuple[str, ...]:
    """The first parameters of a sampler of k-diffusion; empty for a function of another convention."""
    return next((first for first in K_DIFFUSION if tuple(names[: len(first)]) == first), ())


def form_of_class(kind: str, signature: Signature | None, methods: set[str], inherits: bool) -> Form:
    """The form of a class of a kind.

    Args:
        signature: of ``__init__`` without self; None where a base class defined elsewhere has it.
        methods: names defined in the class.
        inherits: whether a base class defined elsewhere may add methods.

    Raises:
        WrongSignature: the class does not follow the conventions of the kind.
        NeedsImport: the default of an option cannot be read without an import.
    """
    own, is_scheduler = KINDS[kind], kind == "scheduler"
    if is_scheduler and not inherits and not {"set_timesteps", "step"} <= methods:
        raise WrongSignature(f"{own.explanation}; found a class without them")
    if signature is None:
        return Form("class", (), True)
    if is_scheduler:  # as in diffusers' own classes, options are not keyword-only, and the checkpoint may set them
        options = _options(own, list(signature.parameters))
        return Form("class", tuple(option.null_by_default() for option in options), signature.has_kwargs)
    return _form(own, "class", signature, own.positional)


def injected_parameters(kind: str, function: Any) -> list[str]:
    """The injectable parameters of its kind that an imported function declares, in its order."""
    own, found = KINDS[kind], inspect.signature(function).parameters.values()
    positional = [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [name for name in positional[len(own.positional) :] if name in own.injectable]


def _form(kind: Kind, style: str, signature: Signature, expected: tuple[str, ...]) -> Form:
    positional = [parameter for parameter in signature.parameters if not parameter.keyword_only]
    if len(positional) < len(expected):  # names are free: these are passed by position
        wanted = ", ".join([*expected, "*", "options"])
        raise WrongSignature(f"a {kind.name} has the signature ({wanted}); found {_shown(signature)}")
    others = [p.name for p in positional[len(expected) :] if p.name not in kind.injectable]
    if others:
        more = f"; {kind.explanation}" if kind.instantiated else ""
        raise WrongSignature(f"options of a {kind.name} are keyword-only: put '*' before {others[0]}{more}")
    return Form(style, _options(kind, [p for p in signature.parameters if p.keyword_only]), signature.has_kwargs)


def _options(kind: Kind, parameters: list[Parameter]) -> tuple[Option, ...]:
    for parameter in parameters:
        if parameter.name in kind.reserved:
            raise WrongSignature(
                f"an option of a {kind.name} cannot be called {parameter.name}: the config has that key"
            )
        if parameter.default is UNREADABLE:
            raise NeedsImport
    return tuple(Option(parameter.name, parameter.type, parameter.default) for parameter in parameters)


def readable(signature: Signature) -> Signature:
    """The signature without parameters whose defaults a config cannot hold (functions, tensors)."""
    return Signature(tuple(p for p in signature.parameters if p.default is not UNREADABLE), signature.has_kwargs)


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
