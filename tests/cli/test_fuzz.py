"""Command lines that nobody should type: each ends without a traceback, in at most three lines that name the key."""

import random
import re
from pathlib import Path

import pytest

import diffexp.cli.launch
from diffexp.catalog.keys import TOP_LEVEL
from diffexp.cli import run_command

LINES, PER_TEST = 200, 20
KEYS = [
    *TOP_LEVEL,
    *("scheduler.eta", "scheduler.name", "grid.timesteps", "grid.sigmas", "metric.fid.features", "metric.psnr.x"),
    *("model.weights", "model._target_", "guidance.rescale", "loop.image", "tracker.project", "scheduler.eta.x"),
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.mode", "hydra.verbose", "hydra.launcher.batch"),
    *("hydra.sweeper.params", "hydra.sweeper.params.steps", "hydra.job.env_set", "hydra.callbacks", "hydra.job.chdir"),
    *(
        "hydra/launcher",
        "hydra/sweeper",
        "hydra/job_logging",
        "hydra.searchpath",
        "hydra.output_subdir",
        "hydra.job.num",
    ),
    *("experiment", "scheduler@x", "scheduler/diffusers", "nonsense", "stepz", "_target_", "num_inference_steps"),
]
VALUES = [
    *(
        "",
        " ",
        "???",
        "null",
        "true",
        "-1",
        "1.5",
        "1e400",
        "nan",
        "-inf",
        "9" * 4400,
        "0x10",
        "1_000",
        "01",
        "é",
        "🐈",
    ),
    *(
        "[]",
        "[1",
        "1]",
        "[[1]]",
        "[null]",
        "[1,2]",
        "{}",
        "{a:1}",
        "{a:{b:[1]}}",
        "{",
        "}",
        "(",
        ")",
        "a(b",
        "a:b",
        ":",
    ),
    *("1,2", "1,,2", ",", "a,b", "[1],[2]", "{a:1},{a:2}", "range(3)", "range(0,5,0)", "range(5,0)", "range(0,1e12)"),
    *("range(a)", "choice()", "choice(1,a)", "shuffle(1,2)", "interval(0,1)", "glob(*)", "glob(no)", "sort(3,1)"),
    *(
        "int(a)",
        "str([1])",
        "float(x)",
        "tag(a,1)",
        "json_str({a:1})",
        "extend_list(1)",
        "foo(1)",
        "range(",
        "choice(1",
    ),
    *("${steps}", "${nothing}", "${", "${}", "${oc.env:NOTHING}", "${hydra:job.name}", "${now:}", "${a.b.c}", "$"),
    *(
        "${scheduler}",
        "${hydra}",
        "'${resume}'",
        "'",
        '"',
        "'a",
        '"a"b',
        "\\",
        "a\\",
        "a'b'c",
        "\n",
        "a\nb",
        "\t",
        "a=b",
    ),
    *("@nothing", "@", "../x", "/", "a/b", "~", "*", "%s", "ddim", "[ddim,euler]", "fid", "[fid,fid]", "x" * 5000),
]
PREFIXES = ["", "", "", "", "+", "++", "~", "-", "--", "@", "~+", " ", "="]
FLAGS = [
    "-m",
    "--cfg",
    "-c",
    "--cfg=job",
    "--info",
    "-p",
    "--resolve",
    "--run",
    "-x",
    "--",
    "-",
    "--steps",
    "--config-dir",
]
VALID = ["steps=3", "scheduler=euler", "model=gaussian", "seed=2", "num_samples=2", "tracker=none", "metric=[cost]"]


def fuzzed(seed: int) -> tuple[list[str], str]:
    """The words of a command line, and the key of the one that is odd."""
    dice = random.Random(seed)
    key, value = dice.choice(KEYS), dice.choice(VALUES)
    equals = dice.choice(["=", "=", "=", "=", "", "=="])
    odd = [dice.choice(PREFIXES) + key + equals + (value if equals else "")] * dice.choice([1, 1, 1, 2])
    others = dice.sample(VALID, dice.randrange(3)) + dice.choices(FLAGS, k=dice.choice([0, 0, 0, 1]))
    words = [*odd, *others, *(["-m"] if dice.random() < 0.4 else [])]
    dice.shuffle(words)
    return words, key


def named(key: str, flags: list[str]) -> list[str]:
    """What an error may name: a part of the key, or a flag that stands in the line too."""
    return [part for part in re.split(r"[./@]", key) if part] + [flag.strip("-").partition("=")[0] for flag in flags]


@pytest.mark.parametrize("first", range(0, LINES, PER_TEST))
def test_no_line_ends_in_a_traceback(first, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFEXP_PLUGINS", raising=False)
    monkeypatch.setattr(diffexp.cli.launch, "launch", lambda *_: (Path("nowhere"), []))
    for seed in range(first, first + PER_TEST):
        words, key = fuzzed(seed)
        code = run_command(words)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err, words
        assert code in (0, 2), (words, printed.err)
        if code:
            lines = printed.err.splitlines()
            assert len(lines) <= 3 and len(printed.err) < 2000, (words, printed.err)
            flags = [word for word in words if word.startswith("-")]
            assert any(name in printed.err for name in named(key, flags)), (words, printed.err)
