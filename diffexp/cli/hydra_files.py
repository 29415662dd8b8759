"""The ``.hydra`` folder of a run."""

import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from diffexp.cli.hydra_internals import get_omega_conf_dumper
from diffexp.files import write_text

try:
    from yaml import CDumper as Dumper
except ImportError:  # PyYAML without its C library
    from yaml import Dumper

HYDRA = "hydra"


def save_hydra_files(content: Mapping[str, Any], folder: Path) -> None:
    """Write the ``.hydra`` folder that Hydra writes for a run on the command line.

    Args:
        content: the composed config in containers; see ``diffexp.cli.cells.as_containers``.
    """
    hydra = content[HYDRA]
    texts = {
        "config": "".join(_section(pickle.dumps({key: own})) for key, own in content.items() if key != HYDRA),
        "hydra": f"{HYDRA}:\n" + "".join(map(_of_hydra, hydra.items())),
        "overrides": _text(hydra["overrides"]["task"]),
    }
    for name, text in texts.items():
        write_text(folder / ".hydra" / f"{name}.yaml", text)


def _of_hydra(item: tuple[str, Any]) -> str:
    """An entry of Hydra's own settings, with its indentation; of those in it few differ from cell to cell."""
    key, value = item
    head = f"{HYDRA}:\n"
    if not isinstance(value, Mapping) or not value:
        return _section(pickle.dumps({HYDRA: {key: value}})).removeprefix(head)
    own = f"{head}  {key}:\n"
    parts = (_section(pickle.dumps({HYDRA: {key: {name: one}}})) for name, one in value.items())
    return f"  {key}:\n" + "".join(part.removeprefix(own) for part in parts)


@lru_cache(maxsize=512)
def _section(packed: bytes) -> str:
    """The text of a pickled mapping. The entries of a config are cached, because most are those of other cells too."""
    return _text(pickle.loads(packed))


def _text(content: Any) -> str:
    return yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)


class _Dumper(Dumper):  # pyright: ignore[reportGeneralTypeIssues]
    """Writes what ``OmegaConf.to_yaml`` writes, ten times as fast where PyYAML has its C library."""


_Dumper.add_representer(str, get_omega_conf_dumper().str_representer)
