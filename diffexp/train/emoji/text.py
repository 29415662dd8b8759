"""A tokenizer of the words in emoji names."""

import json
from collections.abc import Iterable
from pathlib import Path

from transformers import CLIPTokenizer

from diffexp.files import write_text
from diffexp.train.emoji.data import Emoji

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], size: int, length: int, folder: Path) -> CLIPTokenizer:
    """Learn byte pair encoding from ``texts``, so that their common words are one token each; any text can be encoded.

    Args:
        size: how many tokens at most, the 512 of single bytes and the two special ones among them.
        length: tokens of a prompt, start and end included; longer ones are cut.
        folder: where ``vocab.json`` and ``merges.txt`` are written.
    """
    bare = _write(folder, [], length)
    learned = bare.train_new_from_iterator(texts, size)
    merges = json.loads(learned.backend_tokenizer.to_str())["model"]["merges"]
    return _write(folder, [tuple(pair) for pair in merges], length)


def tokenizer_of(data: Emoji, size: int, length: int, folder: Path) -> CLIPTokenizer:
    """The tokenizer in ``folder``, learned from the names of the drawings first if there is none."""
    if (folder / "tokenizer_config.json").is_file():
        return _load(folder)
    # Skin tones repeat every name: without them, the rarer words become one token too.
    once = [drawing for drawing in data.drawings if drawing.weight == 1]
    return train_tokenizer((f"{name}, {one.style}" for one in once for name in one.names), size, length, folder)


def _load(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _write(folder: Path, merges: list[tuple[str, str]], length: int) -> CLIPTokenizer:
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    write_text(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True, **special}
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2))
    return _load(folder)


def _byte_letters() -> list[str]:
    """A printable letter for every byte, as CLIP's and GPT-2's vocabularies have them."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in visible] + [chr(256 + i) for i in range(256 - len(visible))]
