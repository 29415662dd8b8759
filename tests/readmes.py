"""Reads the code of README files: commands, Python, and files that a reader is told to write."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
READMES = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("README.md")
    if not {"outputs", "build", "dist"} & set(path.relative_to(ROOT).parts)
    and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    code: str
    line: int
    """Of the opening fence, from 1."""
    info: str = ""
    """What follows the language on the opening fence."""

    @property
    def file(self) -> str | None:
        """The file whose content the block is, named on the fence or in a comment on the first line."""
        found = re.match(r"# ([\w./-]+\.py)\n", self.code)
        return self.info or (found and found[1])


def blocks(readme: Path) -> list[Block]:
    text = (ROOT / readme).read_text()
    fences = re.finditer(r"^```(\w+)[ ]?([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(fence[1], fence[3], text.count("\n", 0, fence.start()) + 1, fence[2]) for fence in fences]


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command, without comments."""
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


FEW = {
    "compare_schedulers": {"scheduler": "ddim,heun", "max_nfe": "3,4"},
    "text_to_image": {"scheduler": "ddim,heun", "max_nfe": "3,4"},
    "guidance_study": {"guidance_scale": "1,4"},
    "learned_study": {"scheduler": "deis,learned"},
    "guidance_weights": {"guidance": "cfg,falling", "guidance_scale": "2"},
    "search": {"hydra.sweeper.n_trials": "2", "hydra.sweeper.n_jobs": "1"},
}
"""Fewer cells for the sweeps that ship."""
ENDLESS = ("grid.timesteps", "grid.sigmas", "resume", "max_nfe")
"""Keys whose commands have no number of steps to make smaller."""


def shortened(words: list[str]) -> list[str]:
    """The arguments of ``python -m diffexp`` with two samples and at most five steps, tracked nowhere but in a file."""
    given = dict(word.split("=", 1) for word in words if re.match(r"[\w./]+=", word))
    if any(word.startswith("-") and word not in ("-m", "--multirun") for word in words) or "resume" in given:
        return words
    changes = {"num_samples": "2", "snapshot_every": given.get("snapshot_every", "0")}
    changes |= FEW.get(given.get("experiment", ""), {})
    if not given.keys() & set(ENDLESS):
        changes["steps"] = _few(given.get("steps", "4"))
    if "tracker" not in given:
        changes["tracker"] = "none"
    kept = [word for word in words if word.partition("=")[0] not in changes]
    return [*kept, *(f"{key}={value}" for key, value in changes.items())]


def _few(steps: str) -> str:
    """As many different numbers of steps, all of them small."""
    values = steps.split(",")
    return ",".join(str(min(int(value), 3 + index)) for index, value in enumerate(values))


def environment(words: list[str]) -> tuple[Mapping[str, str], list[str]]:
    """Variables set in front of a command, and the command."""
    count = next((index for index, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), len(words))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]
