"""Files of a diffusers pipeline and its additions: those needed, and their hash. Imports nothing heavy."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffexp.components.checkpoints.download import Fetch, Spec, locate
from diffexp.components.checkpoints.layout import INDEX, PICKLED, SAFE, Incomplete, find_layout, list_files, read_config
from diffexp.errors import InputError
from diffexp.files import sha256_of_file

CARD = "README.md"
UNUSED = frozenset({"safety_checker"})
"""Parts that take no part in drawing."""

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model|pytorch_model)(?:\.(?P<variant>\w+))?"
    rf"(?:-(?P<shard>\d+)-of-(?P<shards>\d+))?\.(?P<format>{SAFE}|{PICKLED})"
)
_SMALL = (".json", ".txt", ".model", ".jinja")
_LIBRARIES = ("diffusers", "transformers")
_DECODER = re.compile(r"Kandinsky(V22)?(Img2Img|Inpaint)?Pipeline")
_NO_NETWORK = re.compile(r"Tokenizer|Scheduler|Processor|FeatureExtractor")


@dataclass(frozen=True)
class Choice:
    """The files of a pipeline that are to be loaded."""

    files: tuple[str, ...]
    """Relative to the folder of model_index.json."""
    format: str
    """``"safetensors"``, or ``"bin"`` (pickle) where a network has nothing else."""
    variant: str | None
    """As in ``diffusion_pytorch_model.<variant>.safetensors``."""
    missing: tuple[str, ...]
    """What a copy that is not complete lacks."""


@dataclass(frozen=True)
class Found:
    """A checkpoint that is there."""

    folder: Path
    choice: Choice


@dataclass(frozen=True)
class Addition:
    """Weights on top of a pipeline's own: a LoRA or an IP-Adapter."""

    folder: Path
    file: str
    scale: float


@dataclass(frozen=True)
class Parts:
    """Everything that a pipeline is loaded from."""

    main: Found
    """Its configs, and its weights unless they are in ``file``."""
    file: Path | None = None
    """All networks in one file."""
    vae: Path | None = None
    """A VAE instead of its own, a file or a folder."""
    prior: Found | None = None
    controlnet: Path | None = None
    lora: Addition | None = None
    ip_adapter: Addition | None = None

    def sha256(self) -> str:
        """The hash of the weights in one folder, or the hash of the hashes of several."""
        found: list[tuple[Path, Sequence[str]]] = [(p.folder, p.choice.files) for p in (self.main, self.prior) if p]
        if self.file:
            found[0] = self.file.parent, (self.file.name,)
        if self.vae:
            found.append((self.vae.parent, (self.vae.name,)) if self.vae.is_file() else _network(self.vae))
        found += [(part.folder, (part.file,)) for part in (self.lora, self.ip_adapter) if part]
        if self.controlnet:
            found.append(_network(self.controlnet))
        hashes = [digest(folder, files) for folder, files in found]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _network(folder: Path) -> tuple[Path, Sequence[str]]:
    return folder, find_layout(list_files(folder), str(folder)).files


def read_index(folder: Path, source: str) -> dict[str, Any]:
    """The content of model_index.json.

    Raises:
        InputError: there is none, it is not valid, or it requires code that is not diffusers' own.
    """
    if not (folder / INDEX).is_file():
        raise InputError(f"{source} is not a diffusers pipeline: it has no {INDEX}")
    index = read_config(folder / INDEX)
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise InputError(f"{source} asks for a pipeline class of its own ({name}); code from a checkpoint is never run")
    for part, (library, cls) in parts_of(index).items():
        if (folder / part / f"{library}.py").exists() or (cls.startswith("Auto") and _names_code(folder / part)):
            raise InputError(f"{source} asks for code of its own ({part}/{library}.py), which is never run")
        if library not in _LIBRARIES and not _is_pipeline_of_diffusers(library):
            raise InputError(f"{source} takes its {part} from {library}; only {' and '.join(_LIBRARIES)} are trusted")
    return index


def _names_code(folder: Path) -> bool:
    """Whether a config names the class that an Auto class of transformers is to import from the checkpoint."""
    return any("auto_map" in read_config(path) for path in folder.glob("*config.json"))


def _is_pipeline_of_diffusers(name: str) -> bool:
    """Some parts come from a pipeline's own module; found without importing anything."""
    found = find_spec("diffusers")
    inside = found.submodule_search_locations if found else None
    return name.isidentifier() and any(Path(place, "pipelines", name).is_dir() for place in inside or ())


def parts_of(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """(library, class) of every part that has files of its own."""
    pairs = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    return {name: (value[0], value[1]) for name, value in pairs.items() if all(isinstance(v, str) for v in value)}


def absent_parts(index: Mapping[str, Any]) -> list[str]:
    """Parts that the pipeline was saved without, or that are not loaded."""
    return [name for name, value in index.items() if isinstance(value, list) and (not value[0] or name in UNUSED)]


def choose_files(
    index: Mapping[str, Any], names: Sequence[str], source: str, variant: str | None, allow_pickle: bool
) -> Choice:
    """The files of a pipeline among ``names`` (POSIX paths relative to its folder).

    Every network comes in the wanted variant where it has it, otherwise without one, otherwise in what there is;
    safetensors before pickles.

    Raises:
        InputError: a network has pickled weights only, and they are not allowed.
    """
    files, formats, variants, missing = [INDEX, *([CARD] if CARD in names else [])], set(), set(), []
    for part, (_, cls) in parts_of(index).items():
        if part in UNUSED:
            continue
        inside = [name for name in names if name.startswith(f"{part}/") and name.count("/") == 1]
        small = [name for name in inside if name.endswith(_SMALL)]
        files += small
        if not small:
            missing.append(part)
        if _NO_NETWORK.search(cls):
            continue
        weights, complete = _weights(inside, variant)
        if not complete:
            missing.append(f"{part}/*.{SAFE}")
            continue
        match = _WEIGHTS.fullmatch(weights[0].rpartition("/")[2])
        assert match
        if match["format"] == PICKLED and not allow_pickle:
            raise InputError(
                f"{source} has its weights in pickle format only ({weights[0]}), which can run any code when loaded; "
                "if you trust it: model.allow_pickle=true"
            )
        files += weights
        formats.add(match["format"])
        variants.add(match["variant"])
    chosen = next((name for name in sorted(variants - {None})), None)
    return Choice(tuple(files), PICKLED if PICKLED in formats else SAFE, chosen, tuple(missing))


def _weights(inside: Sequence[str], variant: str | None) -> tuple[list[str], bool]:
    """The weight files of one network, and whether they are complete."""
    groups: dict[tuple[bool, int, str], list[str]] = {}
    shards: dict[tuple[bool, int, str], int] = {}
    for name in inside:
        match = _WEIGHTS.fullmatch(name.rpartition("/")[2])
        if match:
            own = match["variant"]
            rank = 0 if own == variant else 1 if own is None else 2
            key = (match["format"] == PICKLED, rank, own or "")
            groups.setdefault(key, []).append(name)
            shards[key] = int(match["shards"] or 1)
    whole = [key for key in sorted(groups) if len(groups[key]) >= shards[key]]
    return (sorted(groups[whole[0]]), True) if whole else ([], False)


def find_pipeline(
    id: str, key: str, choose: Callable[[Mapping[str, Any], Sequence[str]], Choice], revision: str | None = None
) -> Found:
    """A pipeline in a folder, in the cache or on the hub.

    Args:
        id: as in ``model.id``.
        key: the config key that names it, for messages.
        choose: (content of model_index.json, names of files) -> those to be loaded.
        revision: branch, tag or commit of a repository.

    Raises:
        InputError: it is nowhere, it is of another kind, or something is missing.
    """
    source = f"{key}={id}"

    def find(names: Sequence[str], fetch: Fetch) -> Choice:
        if INDEX not in names:
            raise InputError(f"{source} is not a diffusers pipeline: it has no {INDEX}")
        choice = choose(read_index(fetch([INDEX]), source), names)
        if choice.missing:
            raise Incomplete(f"{source} is not complete: it lacks {', '.join(choice.missing)}")
        return choice

    folder = locate(id, revision, Spec(lambda names, fetch: list(find(names, fetch).files), (INDEX,)), key)
    return Found(folder, find(list_files(folder), lambda _: folder))


def find_network(id: str, key: str) -> Path:
    """The folder of one network of diffusers, such as a ControlNet or a VAE.

    Raises:
        InputError: there is none, or its weights are pickled.
    """
    source = f"{key}={id}"

    def choose(names: Sequence[str], fetch: Fetch) -> list[str]:
        layout = find_layout(names, source)
        if layout.format == PICKLED:
            raise InputError(f"{source} has its weights in pickle format only; a {SAFE} file is needed")
        return layout.files

    return locate(id, None, Spec(choose, ("config.json",)), key)


def find_addition(key: str, id: str, file: str, scale: float, beside: str | None = None) -> Addition:
    """A LoRA or an IP-Adapter.

    Args:
        key: the config key that names it; its file is ``<key>_file``.
        id: a folder or a repository.
        file: the weights.
        scale: their strength.
        beside: a folder that has to lie beside the file, with weights too.

    Raises:
        InputError: it is nowhere, its file is missing, or it is a pickle.
    """
    source, folder = f"{key}={id}", f"{(Path(file).parent / beside).as_posix()}/" if beside else None
    if not file.endswith(f".{SAFE}"):
        raise InputError(f"{key}_file={file}: only {SAFE} files are loaded")

    def choose(names: Sequence[str], fetch: Fetch) -> list[str]:
        if file not in names:
            near = [name for name in names if name.endswith(f".{SAFE}")]
            raise Incomplete(f"{source} has no {file}; it has {', '.join(near) or f'no {SAFE} file'}")
        inside = [name for name in names if folder and name.startswith(folder) and name.endswith((SAFE, *_SMALL))]
        if folder and not any(name.endswith(SAFE) for name in inside):
            raise Incomplete(f"{source} has no {SAFE} file in {folder}")
        return [file, *inside]

    place = locate(id, None, Spec(choose, (file,)), key)
    choose(list_files(place), lambda _: place)
    return Addition(place, file, scale)


def prior_of(folder: Path, index: Mapping[str, Any], source: str) -> str | None:
    """The repository of the prior that the model card of one of Kandinsky's decoders names in its front matter.

    None for a pipeline that needs none.

    Raises:
        InputError: it needs one, and the card does not say which.
    """
    if not _DECODER.fullmatch(str(index["_class_name"])):
        return None
    card = folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    found = re.search(r"^prior:\s*\n\s*-\s*(\S+)\s*$", text, re.MULTILINE)
    if found is None:
        raise InputError(f"{source} is Kandinsky's decoder alone; name its prior as well: model.prior=...")
    return found[1].strip("'\"")


def digest(folder: Path, files: Sequence[str]) -> str:
    """One hash over all weights among ``files``; a file in a hub cache is named by its own."""
    weights = sorted(name for name in files if name.endswith((f".{SAFE}", f".{PICKLED}")))
    lines = "".join(f"{name} {_hash(folder / name)}\n" for name in weights)
    return hashlib.sha256(lines.encode()).hexdigest()


def _hash(path: Path) -> str:
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    return sha256_of_file(blob)
