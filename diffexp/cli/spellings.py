"""What people type who come from elsewhere, and its name here; the table is ``spellings.toml``."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path


@cache
def table() -> Mapping[str, Mapping[str, str]]:
    """For ``keys``, and for each group its options: the name here of every other word."""
    content = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {
        group: {word: name for name, words in names.items() for word in words.split()}
        for group, names in content.items()
    }


def meant_key(word: str) -> str | None:
    """The key that a word stands for elsewhere, such as ``guidance_scale`` for ``cfg-scale``."""
    return table()["keys"].get(word) or table()["keys"].get(_spelled(word))


def meant_choice(group: str, word: str, groups: Mapping[str, Sequence[str]]) -> str | None:
    """What to write for a name that a group does not have, such as ``scheduler=dpmpp_2m grid=karras``.

    Args:
        groups: the options of every group.
    """
    if group == "model" and ("/" in word or word.endswith((".safetensors", ".ckpt"))):
        return f"model=pipeline model.id={word}"
    if group == "guidance" and re.fullmatch(r"[\d.]+", word):
        return f"guidance_scale={word}"
    spelled = _spelled(word).removeprefix("sample_").removeprefix("k_")
    spelled = re.sub(r"_a$", "_ancestral", spelled.replace("++", "pp").replace("dpm_pp", "dpmpp"))
    grid = next((one for one in groups.get("grid", ()) if group == "scheduler" and spelled.endswith(f"_{one}")), "")
    for name in dict.fromkeys((spelled, _spelled(word), spelled.removesuffix(f"_{grid}"))):
        found = name if name in groups.get(group, ()) else table().get(group, {}).get(name)
        if found and found != word:
            return f"{group}={found}" + (f" grid={grid}" if grid and name != spelled else "")
    other = {"scheduler": "grid", "grid": "scheduler"}.get(group, "")  # ComfyUI calls the spacing the scheduler
    found = spelled if spelled in groups.get(other, ()) else table().get(other, {}).get(spelled)
    return f"{other}={found}" if found else None


def _spelled(word: str) -> str:
    return re.sub(r"[\s-]+", "_", word.strip().lower())
