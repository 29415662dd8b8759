"""The part of CSS that drawings use: variables of ``:root``, and rules by elements, classes and those around them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

INHERITED = ("color", "fill", "stroke", "stroke-width", "font-size", "font-weight", "text-anchor", "opacity")
"""Properties that an element has from the one around it; opacities multiply."""
PRESENTATION = (*INHERITED, "stroke-dasharray")
"""Properties that may be attributes as well."""


@dataclass(frozen=True)
class Rule:
    """A rule of a style sheet."""

    chain: tuple[tuple[str, frozenset[str]], ...]
    """Element (or nothing) and classes, from the outermost to the element itself."""
    values: Mapping[str, str]

    @property
    def weight(self) -> int:
        return sum(10 * len(classes) + bool(tag) for tag, classes in self.chain)

    def fits(self, path: Sequence[Element]) -> bool:
        """Whether the rule is for the last element of a path from the root."""
        if not _is(path[-1], self.chain[-1]):
            return False
        rest = list(self.chain[:-1])
        for element in reversed(path[:-1]):
            if rest and _is(element, rest[-1]):
                rest.pop()
        return not rest


class StyleSheet:
    """The rules of a drawing, without those for other media than the usual one: it is light."""

    def __init__(self, text: str) -> None:
        text = re.sub(r"@\w+[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", text)
        rules: list[Rule] = []
        self.variables: dict[str, str] = {}
        for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", text):
            pairs = (part.partition(":") for part in body.split(";"))
            values = {name.strip(): value.strip() for name, colon, value in pairs if colon}
            for selector in selectors.split(","):
                if selector.strip() == ":root":
                    self.variables |= values
                elif found := _chain(selector):
                    rules.append(Rule(found, values))
        self.rules = sorted(rules, key=lambda rule: rule.weight)

    def style(self, path: Sequence[Element], around: Mapping[str, str]) -> dict[str, str]:
        """The properties of the last element of a path from the root.

        Args:
            around: those of the element around it.
        """
        element = path[-1]
        own = {name: element.attrib[name] for name in PRESENTATION if name in element.attrib}
        for rule in self.rules:
            if rule.fits(path):
                own |= rule.values
        inline = (part.partition(":") for part in element.get("style", "").split(";"))
        own |= {name.strip(): value.strip() for name, colon, value in inline if colon}
        own = {name: self._known(value) for name, value in own.items()}
        found = {name: around[name] for name in INHERITED if name in around} | own
        for name in ("fill", "stroke"):
            if found.get(name) == "currentColor":
                found[name] = found.get("color", "black")
        found["opacity"] = str(float(around.get("opacity", 1)) * float(own.get("opacity", 1)))
        return found

    def _known(self, value: str) -> str:
        return re.sub(r"var\((--[\w-]+)\)", lambda match: self.variables.get(match[1], "black"), value)


def _chain(selector: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """The parts of a selector; empty for one of another kind."""
    parts = [re.fullmatch(r"(\w*)((?:\.[\w-]+)*)", part) for part in selector.split()]
    if not all(parts):
        return ()
    return tuple((match[1], frozenset(match[2].split(".")) - {""}) for match in parts if match)


def _is(element: Element, part: tuple[str, frozenset[str]]) -> bool:
    tag, classes = part
    return (not tag or element.tag.rpartition("}")[2] == tag) and classes <= {*element.get("class", "").split()}
