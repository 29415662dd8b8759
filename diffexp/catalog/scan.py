"""Reads the registrations of a Python file without running it."""

import ast
import logging
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from diffexp.catalog.kinds import KINDS
from diffexp.catalog.register import Registration, default_name, registration
from diffexp.catalog.signatures import (
    Form,
    NeedsImport,
    Signature,
    WrongSignature,
    form_of_class,
    form_of_function,
    from_ast,
    from_object,
    k_diffusion_parameters,
    readable,
)
from diffexp.catalog.types import UNREADABLE, read_value
from diffexp.errors import InputError

log = logging.getLogger(__name__)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
DECORATOR_MODULES = ("diffexp", "diffexp.catalog.register")
IGNORED_BASES = ("object", "Protocol", "SchedulerMixin", "ConfigMixin", "ABC", "Generic")


@dataclass(frozen=True)
class RegisteredObject:
    """A registered function or class in a file."""

    registration: Registration
    form: Form
    qualname: str
    line: int
    doc: str
    is_bare_k_diffusion: bool = False
    """Whether it is a k-diffusion sampler that no decorator registers."""


def scan(text: str, shown: str) -> list[RegisteredObject]:
    """Every registration in a file's source.

    Args:
        text: the source.
        shown: the file's name for messages.

    Raises:
        InputError: a syntax error, or a signature that its kind does not have.
        NeedsImport: decorators or defaults that cannot be read without running the file.
    """
    if not re.search(
        r"\bfrom diffexp(\.catalog(\.register)?)? import|\bimport diffexp|^def sample_", text, re.MULTILINE
    ):
        return []
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{shown}:{getattr(error, 'lineno', 1)}: {getattr(error, 'msg', error)}") from error
    return _Scan(tree, text, shown).found()


def scan_module(module: ModuleType, shown: str) -> list[RegisteredObject]:
    """Find the registrations of an imported module; see ``scan``.

    Raises:
        InputError: a signature that its kind does not have.
    """
    found = []
    for name, thing in vars(module).items():
        entry = registration(thing)
        if entry is None or getattr(thing, "__module__", module.__name__) != module.__name__:
            continue
        line = thing.__code__.co_firstlineno if hasattr(thing, "__code__") else 1
        try:
            signature = readable(from_object(thing))
            if isinstance(thing, type):
                form = form_of_class(entry.kind, signature, set(dir(thing)), inherits=False)
            else:
                form = form_of_function(entry.kind, signature)
        except WrongSignature as error:
            raise InputError(f"{shown}:{line}: {error}") from error
        found.append(RegisteredObject(entry, form, name, line, thing.__doc__ or ""))
    return found


class _Scan:
    def __init__(self, tree: ast.Module, text: str, shown: str) -> None:
        self.text = text
        self.shown = shown
        self.statements = list(_top_level(tree.body))
        self.definitions = [s for s in self.statements if isinstance(s, Definition)]
        self.classes = {s.name: s for s in self.definitions if isinstance(s, ast.ClassDef)}
        self.constants = _constants(self.statements)
        self.decorators, self.modules = _aliases(self.statements)

    def found(self) -> list[RegisteredObject]:
        registered = [found for definition in self.definitions for found in self._registrations(definition)]
        read = {id(node) for definition in self.definitions for node in definition.decorator_list if self._use(node)}
        mentions = self._mentions()
        if any(self._has_unread_use(s, read, frozenset(), mentions) for s in self.statements):
            raise NeedsImport
        if registered:
            return registered
        samplers = (found for definition in self.definitions for found in self._sampler(definition))
        return [*{found.qualname: found for found in samplers}.values()]  # of two of one name Python keeps the last

    def _registrations(self, definition: Definition) -> Iterator[RegisteredObject]:
        for node in definition.decorator_list:
            use = self._use(node)
            if use is not None:
                entry = self._entry(*use, definition)
                yield RegisteredObject(
                    entry,
                    self._form(entry.kind, definition),
                    definition.name,
                    definition.lineno,
                    ast.get_docstring(definition) or "",
                )

    def _sampler(self, definition: Definition) -> Iterator[RegisteredObject]:
        """A sampler in k-diffusion's convention, sample_<name>(model, x, sigmas, ...), in a file without decorators."""
        if not isinstance(definition, ast.FunctionDef) or not definition.name.startswith("sample_"):
            return
        names = [argument.arg for argument in (*definition.args.posonlyargs, *definition.args.args)]
        if k_diffusion_parameters(names):
            entry = Registration("scheduler", definition.name.removeprefix("sample_"))
            form = form_of_function("scheduler", readable(from_ast(definition.args, self.constants)))
            doc = ast.get_docstring(definition) or ""
            yield RegisteredObject(entry, form, definition.name, definition.lineno, doc, is_bare_k_diffusion=True)
        elif names[:1] == ["model"]:
            where = self.shown, definition.lineno, definition.name, ", ".join(names)
            log.warning("%s:%d: %s(%s) is left out: it has none of the signatures of k-diffusion's samplers", *where)

    def _use(self, node: ast.expr) -> tuple[str, list[ast.keyword]] | None:
        """The kind and keywords of a decorator of diffexp; None for others."""
        call = node if isinstance(node, ast.Call) else None
        target = call.func if call else node
        kind = self._kind(target)
        if kind is None:
            return None
        if call and call.args:
            raise InputError(f"{self.shown}:{node.lineno}: @{kind} takes keywords only, as in @{kind}(name='mine')")
        return kind, call.keywords if call else []

    def _kind(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return self.decorators.get(node.id)
        if isinstance(node, ast.Attribute) and node.attr in KINDS:
            return node.attr if ast.unparse(node.value) in self.modules else None
        return None

    def _entry(self, kind: str, keywords: list[ast.keyword], definition: Definition) -> Registration:
        traits: dict[str, Any] = {}
        for keyword in keywords:
            value = self._trait(keyword.value)
            if keyword.arg is None or value is UNREADABLE:
                raise NeedsImport
            traits[keyword.arg] = value
        name = traits.pop("name", None) or default_name(definition.name, isinstance(definition, ast.ClassDef))
        return Registration(kind, name, traits)

    def _trait(self, node: ast.expr) -> Any:
        """The value of a trait: as of a default, or a dict of texts to such values."""
        if not isinstance(node, ast.Dict):
            return read_value(node, self.constants)
        keys = [read_value(key, self.constants) if key else UNREADABLE for key in node.keys]
        values = [read_value(value, self.constants) for value in node.values]
        readable = all(isinstance(key, str) for key in keys) and UNREADABLE not in values
        return dict(zip(keys, values)) if readable else UNREADABLE

    def _form(self, kind: str, definition: Definition) -> Form:
        try:
            if isinstance(definition, ast.ClassDef):
                return self._form_of_class(kind, definition)
            return form_of_function(kind, from_ast(definition.args, self.constants))
        except WrongSignature as error:
            raise InputError(f"{self.shown}:{definition.lineno}: {error}") from error

    def _form_of_class(self, kind: str, definition: ast.ClassDef) -> Form:
        lineage, elsewhere = self._lineage(definition)
        if any("dataclass" in ast.unparse(node) for ancestor in lineage for node in ancestor.decorator_list):
            raise NeedsImport  # its __init__ is generated
        methods = [node for ancestor in lineage for node in ancestor.body if isinstance(node, ast.FunctionDef)]
        start = next((method for method in methods if method.name == "__init__"), None)
        if start is not None:
            signature = from_ast(start.args, self.constants).without_self()
        else:
            signature = None if elsewhere else Signature((), has_kwargs=False)
        return form_of_class(kind, signature, {method.name for method in methods}, elsewhere)

    def _lineage(self, definition: ast.ClassDef) -> tuple[list[ast.ClassDef], bool]:
        """The class with its bases in this file, and whether some base is defined elsewhere."""
        lineage, elsewhere = [definition], False
        for base in definition.bases:
            name = ast.unparse(base.value if isinstance(base, ast.Subscript) else base).split(".")[-1]
            if name in self.classes and name != definition.name:
                more, other = self._lineage(self.classes[name])
                lineage, elsewhere = [*lineage, *more], elsewhere or other
            elif name not in IGNORED_BASES:
                elsewhere = True
        return lineage, elsewhere

    def _mentions(self) -> list[int]:
        """Numbers of the lines with a name of the decorators, to skip others in the search below."""
        roots = {*self.decorators, *(module.split(".")[0] for module in self.modules)}
        names = [rf"(?<![\w.]){re.escape(root)}(?!\w)" for root in roots]
        word = re.compile("|".join([*names, r"import +\*"]))
        return [number for number, line in enumerate(self.text.splitlines(), 1) if word.search(line)]

    def _has_unread_use(self, node: ast.AST, read: set[int], hidden: frozenset[str], mentions: list[int]) -> bool:
        """Whether a decorator is used in a way that this reader cannot evaluate."""
        if isinstance(node, ast.stmt | ast.expr):
            first = bisect_left(mentions, min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]))
            if first == len(mentions) or mentions[first] > (node.end_lineno or node.lineno):
                return False
        if id(node) in read or isinstance(node, ast.ImportFrom | ast.Import):
            return isinstance(node, ast.ImportFrom) and node.module in DECORATOR_MODULES and node.names[0].name == "*"
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load) and self._kind(node):
            return not (isinstance(node, ast.Name) and node.id in hidden)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            hidden |= _locals(node)
        return any(self._has_unread_use(child, read, hidden, mentions) for child in ast.iter_child_nodes(node))


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import, including those inside if, try and with."""
    for statement in body:
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from _top_level(handler.body)
        else:
            yield statement


def _constants(statements: list[ast.stmt]) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            if isinstance(statement.targets[0], ast.Name):
                found[statement.targets[0].id] = statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            found[statement.target.id] = statement.value
    return found


def _aliases(statements: list[ast.stmt]) -> tuple[dict[str, str], set[str]]:
    """Local names of the decorators, and expressions for modules that define them."""
    decorators: dict[str, str] = {}
    modules: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.ImportFrom) and not statement.level:
            for alias in statement.names:
                if statement.module in DECORATOR_MODULES and alias.name in KINDS:
                    decorators[alias.asname or alias.name] = alias.name
                elif f"{statement.module}.{alias.name}" in DECORATOR_MODULES:
                    modules.add(alias.asname or alias.name)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                if alias.name in DECORATOR_MODULES:
                    modules.update([alias.asname] if alias.asname else ["diffexp", alias.name])
    return decorators, modules


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    arguments = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return arguments | stored


def relative(path: Path) -> str:
    """A path for messages: relative if it is inside the working folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
