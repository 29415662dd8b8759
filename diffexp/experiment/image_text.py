"""What the images of a run say about it: the command that makes them again, seed, scheduler, version.

PNGs have it as text, under these keys and under ``parameters`` as Automatic1111 writes it, which other programs show;
GIFs as their comment.
"""

import io
import re
import shlex
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL.PngImagePlugin import PngInfo, putchunk

from diffexp.components.prompts import read_texts
from diffexp.errors import InputError

COMMAND, PARAMETERS = "command", "parameters"
Texts = Callable[[int], Mapping[str, str]]
"""The texts of an image by the index of its sample."""
PLACE = re.compile(r"(resume|workers|hydra\.run\.dir|hydra\.sweep\.\w+|hydra[/.]launcher[\w.]*)=")
"""Words of a command that say where a run takes place, and nothing about its samples."""
OWN_CHUNKS = (b"tEXt", b"iTXt", b"zTXt")
SIGNATURE = 8
"""Bytes in front of the first chunk of a PNG."""


def with_texts(png: bytes, texts: Mapping[str, str]) -> bytes:
    """A PNG with these texts in place of its own; every other byte is the same. Without texts, as it is."""
    return _replaced(png, texts) if texts else png


def without_texts(png: bytes) -> bytes:
    """A PNG without its texts; every other byte is the same."""
    return _replaced(png, {})


def _replaced(png: bytes, texts: Mapping[str, str]) -> bytes:
    info, out, position = PngInfo(), io.BytesIO(), SIGNATURE
    for key, value in texts.items():
        info.add_text(key, value)
    out.write(png[:SIGNATURE])
    while position + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        end = position + 12 + length
        if kind not in OWN_CHUNKS:
            out.write(png[position:end])
        if kind == b"IHDR":
            for own, data, *_ in info.chunks:
                putchunk(out, own, data)
        position = end
    return out.getvalue() + png[position:]


def sample_texts(record: Mapping[str, Any]) -> Texts:
    """The texts of the samples of the run with this ``run.json``."""
    config = record["config"]
    prompts, negatives = (_cycle(key, config.get(key)) for key in ("prompt", "negative_prompt"))
    common = run_texts(record, prompt=False)

    def texts(index: int) -> Mapping[str, str]:
        shown = [prompts[index % len(prompts)]] if prompts else []
        shown += [f"Negative prompt: {negatives[index % len(negatives)]}"] if negatives else []
        parameters = "\n".join([*shown, f"{common[PARAMETERS]}, Sample: {index}"])
        return common | {PARAMETERS: parameters, "sample": str(index)}

    return texts


def run_texts(record: Mapping[str, Any], *, prompt: bool = True) -> dict[str, str]:
    """The texts of an image of a whole run, such as its grid.

    Args:
        prompt: whether ``parameters`` begins with the prompts.
    """
    config: Mapping[str, Any] = record["config"]
    scheduler = _choice(config, "scheduler")
    version = (record.get("versions") or {}).get("diffexp", "")
    facts = {
        "Steps": config.get("steps"),
        "Sampler": scheduler,
        "Schedule type": _choice(config, "grid"),
        "CFG scale": config.get("guidance_scale"),
        "Seed": record.get("seed"),
        "Model": _choice(config, "model"),
        "Label": config.get("label"),
        "Version": f"diffexp {version}".rstrip(),
    }
    parameters = ", ".join(f"{name}: {_quoted(value)}" for name, value in facts.items() if value not in (None, ""))
    shown = _cycle("prompt", config.get("prompt")) if prompt else []
    return {
        PARAMETERS: "\n".join([*shown, parameters]),
        COMMAND: again(str(record.get("command") or "")),
        "seed": str(record.get("seed")),
        "scheduler": scheduler,
        "version": f"diffexp {version}".rstrip(),
    }


def again(command: str) -> str:
    """The command without what says where its run took place."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation without an end
        return command
    return shlex.join(word for word in words if not PLACE.match(word))


def _choice(config: Mapping[str, Any], group: str) -> str:
    node = config.get(group) or {}
    return str(node.get("_target_") or node.get("name") or "").rpartition(".")[2]


def _cycle(key: str, value: str | Sequence[str] | None) -> list[str]:
    """The texts that samples cycle through."""
    try:
        found = read_texts(key, value)
    except InputError:  # its file has gone since the run was composed
        found = str(value)
    return [] if found is None else [found] if isinstance(found, str) else found


def _quoted(value: object) -> str:
    """A value as Automatic1111 writes it: in quotes where it has commas, colons or line breaks."""
    text = str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if re.search(r"[,:\n]", text) else text
