"""A config in plain containers: its values checked and converted, whether words or YAML files set them."""

from collections.abc import Mapping
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.catalog.entry import as_typed
from diffexp.catalog.keys import BY_NAME, TOP_LEVEL
from diffexp.catalog.kinds import KINDS, TARGET, is_node
from diffexp.catalog.types import MISSING, OptionType
from diffexp.errors import InputError, hint, unknown_option

_SWITCHES: dict[str, Any] = dict.fromkeys(("yes", "y", "on", "true"), True)
_SWITCHES.update((word, False) for word in ("no", "n", "off", "false"))


def check_config(config: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Check every value of a config, with that of Hydra left out.

    Returns:
        The config with values of their types, such as 5.0 for 5; interpolations are neither checked nor converted.

    Raises:
        InputError: the first mistake.
    """
    for key in config:
        if key not in TOP_LEVEL:
            raise InputError(f"unknown key '{key}'{hint(key, TOP_LEVEL)}")
    return {key: check_key(key, config.get(key, MISSING), catalog) for key in TOP_LEVEL}


def check_key(key: str, value: Any, catalog: Catalog) -> Any:
    """Check the value of a top-level key or the nodes of a group; returns it with values of their types.

    Raises:
        InputError: the first mistake.
    """
    if is_interpolated(value):
        return value
    if key in BY_NAME:
        return _check_value(key, value)
    if KINDS[key].required and (value is None or value in ({}, MISSING)):
        raise InputError(f"{key} needs a choice{hint('', catalog.names(key))}")
    if not KINDS[key].several:
        return check_node(key, value, catalog)
    nodes = {} if value is None or value == MISSING else value
    if not isinstance(nodes, Mapping):
        raise InputError(f"{key}={as_typed(value)} is not known{hint('', catalog.names(key))}")
    return {name: check_node(key, node, catalog, name) for name, node in _by_name(key, nodes, catalog).items()}


def _by_name(kind: str, nodes: Mapping[str, Any], catalog: Catalog) -> dict[str, Mapping[str, Any]]:
    """The nodes of a group of several by name; what stands beside them are options of the only one.

    Raises:
        InputError: there is something else.
    """
    found = {name: node for name, node in nodes.items() if is_node(node)}
    loose = {name: value for name, value in nodes.items() if name not in found}
    if is_node(loose):  # a YAML file's, which writes it as if there were no others
        name = str(loose.get("name") or loose[TARGET]).rpartition(".")[2]
    elif len(found) == 1:
        (name,) = found
    else:
        name = ""
    entry = catalog.find(kind, name)
    for option, value in loose.items():
        if option in ("name", TARGET) and is_node(loose):
            continue
        if not name or catalog.find(kind, option) or (entry is None and not is_node(loose)):
            raise _misplaced(kind, option, value, list(nodes), catalog)
        if entry:
            entry.option_set(kind).check_name(option)
    return {**found, name: {**found.get(name, {}), **loose}} if loose else found


def check_node(kind: str, node: Any, catalog: Catalog, name: str = "") -> Any:
    """Check a node ``{name, options...}`` of a group; returns it with values of their types.

    Args:
        name: the key of the node in a group of several.

    Raises:
        InputError: the first mistake.
    """
    if isinstance(node, Mapping):
        entry = catalog.find(kind, str(node.get("name")))
        types = {own.name: own.type for own in (*KINDS[kind].common, *(entry.options if entry else ()))}
        node = {option: _stored(types[option], own) if option in types else own for option, own in node.items()}
    catalog.check(kind, node, KINDS[kind].path(name))
    return node


def with_value(config: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A config with another value at a dotted path; mappings are merged. ``config`` is not changed."""
    head, _, rest = path.partition(".")
    old = config.get(head)
    if rest:
        value = with_value(old if isinstance(old, Mapping) else {}, rest, value)
    elif isinstance(old, Mapping) and isinstance(value, Mapping):
        merged = dict(old)
        for key, own in value.items():
            merged = with_value(merged, str(key), own)
        value = merged
    return {**config, head: value}


def is_interpolated(value: Any) -> bool:
    """Whether a value, or one inside it, is an interpolation ``${...}``."""
    if isinstance(value, Mapping):
        return any(map(is_interpolated, value.values()))
    return any(map(is_interpolated, value)) if isinstance(value, list) else isinstance(value, str) and "${" in value


def _check_value(key: str, value: Any) -> Any:
    found = _stored(BY_NAME[key].type, value)
    if problem := BY_NAME[key].problem(found):
        raise InputError(f"{key}={as_typed(value)} {problem}")
    return found


def _misplaced(kind: str, name: str, value: Any, chosen: list[str], catalog: Catalog) -> InputError:
    """The error for what is set in a group of several, and not in the node of one that was chosen."""
    if catalog.find(kind, name):
        return InputError(f"{kind}.{name} has no effect without {kind}={name}: choose {kind}=[{','.join(chosen)}]")
    entries = [entry for own in chosen if (entry := catalog.find(kind, own))]
    owners = [entry.name for entry in entries if any(option.name == name for option in entry.options)]
    if owners:
        return InputError(f"unknown option '{kind}.{name}'; did you mean '{kind}.{owners[0]}.{name}'?")
    rest = next(iter(value)) if isinstance(value, Mapping) and value else ""
    return InputError(unknown_option(kind, f"{name}.{rest}".rstrip("."), [own for own in chosen if own != name]))


def _stored(kind: OptionType, value: Any) -> Any:
    """The value as this type holds it, such as 5 for "5"; unchanged where it does not fit."""
    if isinstance(value, list | tuple) and kind.item:
        return [_stored(kind.item, item) for item in value]
    if value is None or isinstance(value, list | tuple | dict):
        return value
    try:
        if kind.base == "int" and type(value) in (int, str):
            return int(value)
        if kind.base == "float" and type(value) in (int, float, str):
            return float(value)
        if kind.base == "bool" and isinstance(value, int | str):
            return {0: False, 1: True}.get(int(value), value)
    except (ValueError, OverflowError):  # 10**400 is no float
        return _SWITCHES.get(str(value).lower(), value) if kind.base == "bool" else value
    return str(value) if kind.base == "str" else value
