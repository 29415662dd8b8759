"""``--from-image x.png``: the command that makes an image again.

Images of diffexp have it as text; those of Automatic1111 and ComfyUI have settings, of which some can be translated.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from diffexp.cli.spellings import meant_choice
from diffexp.cli.words import in_quotes
from diffexp.errors import InputError
from diffexp.experiment.image_text import COMMAND, PARAMETERS, again

START = ["python", "-m", "diffexp"]
GRAPH = "prompt"
"""Where ComfyUI has the graph of an image, as JSON."""
USER_COMMENT, EXIF = 0x9286, 0x8769
"""Where Automatic1111 has its text in images other than PNGs."""
SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
TEXTS = ("prompt", "negative_prompt")
MOST_LINKS = 20
"""Links of a graph that are followed from one node."""
Choices = Mapping[str, Sequence[str]]
"""Every group with its options."""


@dataclass(frozen=True)
class Found:
    """A command, and what it leaves out."""

    command: str
    """In one line, for a shell."""
    notes: Sequence[str] = ()


def command_of(file: Path, groups: Choices) -> Found:
    """The command that makes an image again.

    Args:
        groups: what can be chosen, to translate the settings of other programs.

    Raises:
        InputError: no such file, no image, or one that does not say how it was made.
    """
    texts = _texts(file)
    if (own := _own_words(texts.get(COMMAND, ""))) is not None:
        return Found(shell_line([*START, *own]))
    settings = _of_graph(texts.get(GRAPH, "")) or _of_parameters(texts.get(PARAMETERS, ""))
    if not settings:
        raise InputError(f"{file} does not say how it was made; images of diffexp have the command as text")
    return _translated(settings, groups)


def shell_line(words: Sequence[str]) -> str:
    """The words quoted for a shell, in one line also where a word has several lines."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    parts = (one if one.isprintable() else f"\\u{ord(one):04x}" if ord(one) < 1 << 16 else "" for one in escaped)
    return "$'" + "".join(parts).replace("\\u000a", "\\n") + "'"


def _texts(file: Path) -> dict[str, str]:
    """The texts in an image file by key; that of Automatic1111 in a JPEG or WebP under the key that it has in a PNG."""
    try:
        with Image.open(file) as image:
            found = _found(image)
            if not found.keys() & {COMMAND, PARAMETERS, GRAPH}:
                image.load()  # texts may follow the pixels
                found |= _found(image)
            return found
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{file} is a folder; give an image") from None
    except UnidentifiedImageError:
        raise InputError(f"{file} is not an image that can be read") from None
    except PermissionError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        raise InputError(f"{file} is damaged: {' '.join(str(error).split())}") from None


def _found(image: Image.Image) -> dict[str, str]:
    found = {key: value for key, value in image.info.items() if isinstance(key, str) and isinstance(value, str)}
    comment = image.info.get("comment")
    if isinstance(comment, bytes):  # of a GIF
        found[COMMAND] = comment.decode(errors="replace")
    written = image.getexif().get_ifd(EXIF).get(USER_COMMENT)
    if isinstance(written, bytes) and written.startswith(b"UNICODE\0"):
        found.setdefault(PARAMETERS, written[8:].decode("utf-16-be", errors="replace").strip("\0"))
    elif written:
        text = written.decode(errors="replace") if isinstance(written, bytes) else str(written)
        found.setdefault(PARAMETERS, text.removeprefix("ASCII\0\0\0").strip("\0"))
    return found


def _own_words(command: str) -> list[str] | None:
    """The words of a command of diffexp; None for any other, which may do anything."""
    try:
        words = shlex.split(again(command))
    except ValueError:
        return None
    return words[3:] if words[:3] == START else None


Settings = dict[str, str]
"""By the names that Automatic1111 gives them."""


def _of_parameters(text: str) -> Settings:
    """The settings in the text of Automatic1111: the prompts, and a last line of ``Name: value, ...``."""
    *lines, last = text.strip().split("\n")
    pairs = SETTING.findall(last)
    if not any(name == "Steps" for name, _ in pairs):
        return {}
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    settings = {name: _unquoted(value.strip()) for name, value in pairs}
    return {"prompt": prompt.strip(), "negative_prompt": negative.strip(), **settings}


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value


def _of_graph(text: str) -> Settings:
    """The settings of the first sampler in a graph of ComfyUI."""
    try:
        nodes = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    graph = nodes if isinstance(nodes, dict) else {}
    sampler = next((node for node in graph.values() if "KSampler" in str(_class(node))), None)
    if sampler is None:
        return {}
    own = _inputs(sampler)
    size = next(_values(graph, own.get("latent_image"), ("width",)), {})
    found = {
        "prompt": next(_values(graph, own.get("positive"), ("text",)), {}).get("text"),
        "negative_prompt": next(_values(graph, own.get("negative"), ("text",)), {}).get("text"),
        "Steps": own.get("steps"),
        "Sampler": own.get("sampler_name"),
        "Schedule type": own.get("scheduler"),
        "CFG scale": own.get("cfg"),
        "Seed": own.get("seed", own.get("noise_seed")),
        "Size": f"{size['width']}x{size.get('height')}" if size else None,
        "Batch": size.get("batch_size"),
        "Model": next(_values(graph, own.get("model"), ("ckpt_name", "unet_name")), {}).get("ckpt_name"),
        "Denoising strength": own.get("denoise") if own.get("denoise") not in (None, 1, 1.0) else None,
    }
    return {name: str(value) for name, value in found.items() if isinstance(value, str | int | float)}


def _values(graph: Mapping[str, Any], link: Any, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The inputs of the nodes that a link leads to, which have one of the wanted ones."""
    waiting, seen = [link], set[str]()
    while waiting and len(seen) < MOST_LINKS:
        link = waiting.pop(0)
        name = str(link[0]) if isinstance(link, list) and link else ""
        if name in seen or name not in graph:
            continue
        seen.add(name)
        inputs = _inputs(graph[name])
        if any(isinstance(inputs.get(key), str | int) for key in wanted):
            yield inputs
        waiting += [value for value in inputs.values() if isinstance(value, list)]


def _class(node: Any) -> Any:
    return node.get("class_type") if isinstance(node, dict) else None


def _inputs(node: Any) -> Mapping[str, Any]:
    found = node.get("inputs") if isinstance(node, dict) else None
    return found if isinstance(found, dict) else {}


def _translated(settings: Settings, groups: Choices) -> Found:
    """The command for the settings of another program, with a note for each that it leaves out."""
    rest = {name: value for name, value in settings.items() if value}
    words = ["model=pipeline", f"model.id={_file(model)}"] if (model := rest.pop("Model", "")) else []
    chosen: dict[str, str] = {}
    for name, group in (("Sampler", "scheduler"), ("Schedule type", "grid")):
        if found := _choice(group, rest.get(name, ""), groups):
            del rest[name]
            chosen |= {word.partition("=")[0]: word for word in found.split() if word != "grid=auto"}
    words += chosen.values()
    if numbers := re.fullmatch(r"(\d+)x(\d+)", rest.get("Size", "")):
        del rest["Size"]
        words += [f"model.width={numbers[1]}", f"model.height={numbers[2]}"]
    names = {"Steps": "steps", "CFG scale": "guidance_scale", "Seed": "seed", "Batch": "num_samples"}
    for name, key in names.items():
        if re.fullmatch(r"-?\d+(\.\d+)?", rest.get(name, "")):
            words.append(f"{key}={rest.pop(name)}")
    words += [f"{key}={_hydra_text(rest.pop(key))}" for key in TEXTS if key in rest]
    notes = ["another program made this image: the command gives a similar one, not the same"]
    if model:
        notes.append(
            f"give the file or the folder of the model {model}, or its name on the Hugging Face Hub, as model.id"
        )
    else:
        notes.append("the image does not name its model: add model=...")
    left = ", ".join(f"{name}: {value}" for name, value in rest.items() if name not in ("Version", "Model hash"))
    return Found(shell_line([*START, *words]), [*notes, *([f"not translated: {left}"] if left else [])])


def _choice(group: str, word: str, groups: Choices) -> str:
    """What chooses the same of a group here, such as ``scheduler=dpmpp_2m grid=karras``; empty where nothing does."""
    spelled = re.sub(r"[\s-]+", "_", word.strip().lower())
    if spelled in groups.get(group, ()):
        return f"{group}={spelled}"
    return (meant_choice(group, word, groups) if word else None) or ""


def _file(model: str) -> str:
    return model if model.endswith((".safetensors", ".ckpt", ".sft")) else f"{model}.safetensors"


def _hydra_text(text: str) -> str:
    """A text as a word that means this text and nothing else."""
    text = f"@{text}" if text.startswith("@") else text
    return in_quotes(text.replace("${", "\\${"))
