"""Plugins of all seven kinds: found in every place, used by runs and workers of sweeps, refused with a clear reason.

Tests of reading files as such are in tests/catalog/test_discover.py.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import diffexp
from diffexp.catalog.discover import Catalog, discover
from diffexp.catalog.kinds import KINDS
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.help import help_text
from diffexp.cli.hydra_config import hydra_session
from diffexp.errors import InputError
from diffexp.experiment.contracts import with_contract_checks
from diffexp.experiment.run import run_experiment

SOURCES = {
    "scheduler": """
        from diffexp import scheduler

        @scheduler
        def mine(denoise, x, levels, noise, *, strength: float = 0.5):
            '''A scheduler of one's own.'''
            for here, there in levels.pairs():
                x0, eps = denoise.predict(x, here)
                x = there.alpha * x0 + strength * there.sigma * eps
            return x
        """,
    "grid": """
        from diffexp import grid, linspace

        @grid
        def mine(schedule, steps, *, strength: float = 0.5):
            '''A grid of one's own.'''
            return linspace(schedule, steps + int(strength > 1))
        """,
    "loop": """
        from diffexp import loop, sample

        @loop
        def mine(batch, *, strength: float = 0.5):
            '''A loop of one's own.'''
            return sample(batch.sampler, batch.network, batch.noise() * batch.sampler.start_std, batch.noise)
        """,
    "guidance": """
        from diffexp import guidance

        @guidance
        def mine(predict, scale, *, strength: float = 0.5):
            '''A guidance of one's own.'''
            return lambda u, t, condition: strength * predict(u, t, condition)
        """,
    "model": """
        from diffexp import gaussian, model

        @model
        def mine(runtime, *, strength: float = 0.5):
            '''A model of one's own.'''
            return gaussian(runtime, mean=[strength, strength])
        """,
    "metric": """
        from diffexp import metric

        @metric
        class Mine:
            '''A metric of one's own.'''

            def __init__(self, *, strength: float = 0.5):
                self.strength = strength

            def applies(self, model):
                return None

            def update(self, samples, images):
                self.count = len(samples)

            def compute(self, run):
                return {"mine": self.count * self.strength}
        """,
    "tracker": """
        from diffexp import tracker

        @tracker
        class Mine:
            '''A tracker of one's own.'''

            def __init__(self, *, strength: float = 0.5):
                self.run_id = f"mine-{strength:g}"

            def start(self, info): ...
            def log_step(self, step, values): ...
            def log_images(self, key, paths): ...
            def log_samples(self, rows): ...

            def finish(self, summary, status):
                with open("tracked.txt", "a") as file:
                    file.write(f"{self.run_id} {status}\\n")
        """,
}
SELECT = {kind: [f"{kind}=mine", f"{kind}.strength=0.25"] for kind in KINDS if kind != "metric"}
SELECT["metric"] = ["metric=[mine]", "metric.mine.strength=0.25"]
BASE = {"model": "gaussian", "metric": "cost", "tracker": "none"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFEXP_PLUGINS", raising=False)
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))


def compose(catalog: Catalog, words: list[str]) -> dict[str, Any]:
    with hydra_session(catalog) as hydra:
        return task_config(Preflight(hydra, catalog).check(words, multirun=False).config)


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    """A run of nothing but what is built in, to put a plugin into."""
    words = [f"{kind}={name}" for kind, name in BASE.items()]
    return compose(discover(), [*words, "model.shape=[16]", "steps=2", "num_samples=3"])


def run(base: dict[str, Any], kind: str, **options: Any) -> dict[str, float]:
    """The metrics of a run with ``mine`` of that kind."""
    node = {"name": "mine", **options}
    return run_experiment(
        {**base, kind: {"mine": node} if kind == "metric" else node}, Path.cwd() / "run", discover()
    ).metrics


def as_file(place: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    write(place / "plugins" / "own.py", text)
    return "plugins/own.py"


def as_folder(place: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    write(place / "plugins" / "own" / "part.py", text)
    return "plugins/own/part.py"


def by_environment(place: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    write(place / "else where" / "own.py", text)
    monkeypatch.setenv("DIFFEXP_PLUGINS", "else where")
    return "else where/own.py"


def by_entry_point(place: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    write(place / "site" / "own_package" / "__init__.py", "")
    write(place / "site" / "own_package" / "part.py", text)
    write(place / "site" / "own-1.0.dist-info" / "entry_points.txt", "[diffexp.plugins]\nown = own_package\n")
    monkeypatch.syspath_prepend(str(place / "site"))
    monkeypatch.delitem(sys.modules, "own_package", raising=False)
    monkeypatch.delitem(sys.modules, "own_package.part", raising=False)
    return "site/own_package/part.py"


INSTALL = {function.__name__: function for function in (as_file, as_folder, by_environment, by_entry_point)}


@pytest.mark.parametrize("way", INSTALL)
@pytest.mark.parametrize("kind", KINDS)
def test_found_shown_composed_and_imported(kind: str, way: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = INSTALL[way](place, monkeypatch, SOURCES[kind])
    catalog = discover()
    entry = catalog.get(kind, "mine")
    assert [(option.name, str(option.type), option.default) for option in entry.options] == [("strength", "float", 0.5)]
    assert entry.doc == f"A {kind} of one's own."
    assert entry.where.startswith(f"{file}:")
    shown = help_text(catalog)
    assert f"A {kind} of one's own.  [{file}]" in shown
    assert f"{entry.path}.strength: float = 0.5" in shown
    loaded = entry.load()
    assert (loaded.__name__.lower(), loaded.__doc__) == ("mine", entry.doc)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_brings_configs_for_its_kind(kind: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_folder(place, monkeypatch, SOURCES[kind])
    package = "# @package metric.preset\n" if kind == "metric" else ""
    preset = f"{package}# A preset\ndefaults:\n  - mine@_here_\n  - _self_\n\nstrength: 0.125\n"
    write(place / "plugins" / "own" / "conf" / kind / "preset.yaml", preset)
    catalog = discover()
    with hydra_session(catalog) as hydra:
        preflight = Preflight(hydra, catalog)
        composed = [preflight.check(words, multirun=False).config[kind] for words in ([f"{kind}=preset"], SELECT[kind])]
    presets, chosen = (node.get("preset", node.get("mine", node)) for node in composed)
    assert (presets.name, presets.strength) == ("mine", 0.125)
    assert (chosen.name, chosen.strength) == ("mine", 0.25)
    assert "A preset" in help_text(catalog)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_uses_it(kind: str, base: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_file(place, monkeypatch, SOURCES[kind])
    metrics = run(base, kind, strength=0.25)
    record = json.loads((place / "run" / "run.json").read_text())
    assert record["status"] == "done"
    if kind == "metric":
        assert metrics == {"mine": 0.75}
    if kind == "tracker":
        assert (place / "tracked.txt").read_text() == "mine-0.25 done\n"
        assert record["wandb_id"] == "mine-0.25"


def test_a_metric_may_compare_with_the_accurate_solution(
    base: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        from diffexp import metric

        @metric
        class Mine:
            def applies(self, model):
                return None

            def compare(self, ours, reference):
                return {"mine": (ours.samples - reference.samples).abs().flatten(1).max(dim=1).values}
        """
    as_file(place, monkeypatch, text)
    assert run(base, "metric")["mine"] > 0


def test_workers_of_a_sweep_use_all_of_them(place: Path) -> None:
    """In processes of their own, started by joblib, with the plugins where DIFFEXP_PLUGINS says."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    for kind, text in SOURCES.items():
        write(place / "mine" / f"{kind}.py", text)
    words = [word for kind in KINDS for word in SELECT[kind]]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(diffexp.__path__[0]).parent), os.environ.get("PYTHONPATH", "")]),
        "DIFFEXP_PLUGINS": "mine",  # relative, as people write it
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "diffexp", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
            *("num_samples=3", "device=cpu", "steps=2,3", *words),
        ],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(file.read_text()) for file in place.glob("outputs/multirun/*/*/*/run.json")]
    assert sorted((record["config"]["steps"], record["status"]) for record in records) == [(2, "done"), (3, "done")]
    results = [json.loads(file.read_text()) for file in place.glob("outputs/multirun/*/*/*/metrics.json")]
    assert results == [{"mine": 0.75}] * 2
    assert (place / "tracked.txt").read_text() == "mine-0.25 done\n" * 2


def complaint(act: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_collisions(kind: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_file(place, monkeypatch, SOURCES[kind])
    write(place / "plugins" / "b.py", SOURCES[kind])
    line = discover_line(SOURCES[kind])
    two = f"two {kind}s are called 'mine'"
    assert complaint(discover) == f"{two}: plugins/b.py:{line} and plugins/own.py:{line}"
    (place / "plugins" / "b.py").unlink()
    write(place / "plugins" / "c" / "conf" / kind / "mine.yaml", "name: mine\n")
    assert complaint(discover) == f"{two}: plugins/own.py:{line} and plugins/c/conf/{kind}/mine.yaml"


@pytest.mark.parametrize("kind", KINDS)
def test_collisions_with_what_is_built_in(kind: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(discover().of_kind(kind)))
    as_file(place, monkeypatch, SOURCES[kind].replace(f"@{kind}", f"@{kind}(name={name!r})"))
    found = complaint(discover)
    assert found.startswith(f"two {kind}s are called '{name}': ")
    assert found.endswith(f" and plugins/own.py:{discover_line(SOURCES[kind])}")


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_imported(kind: str, base: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_folder(place, monkeypatch, f"{textwrap.dedent(SOURCES[kind])}\nfrom .helper import VALUE\n")
    write(place / "plugins" / "own" / "helper.py", "import math\n\nVALUE = math.nonsense\n")
    discover()  # reading is not running: other options stay usable
    found = complaint(lambda: run(base, kind))
    assert found == (
        "plugins/own/helper.py:3: the plugin cannot be imported: "
        "AttributeError: module 'math' has no attribute 'nonsense'"
    )


SIGNATURES = {
    "scheduler": ("denoise, x, levels", "a scheduler is a function (denoise, x, levels, noise, *, options)"),
    "grid": ("schedule", "a grid has the signature (schedule, steps, *, options); found (schedule)"),
    "loop": ("", "a loop has the signature (batch, *, options); found ()"),
    "guidance": ("predict, scale, eta", "options of a guidance are keyword-only: put '*' before eta"),
    "model": ("*, size=3", "a model has the signature (runtime, *, options); found (*, size)"),
    "metric": ("size", "options of a metric are keyword-only: put '*' before size"),
    "tracker": ("path='here'", "options of a tracker are keyword-only: put '*' before path"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [True, False], ids=["read", "imported"])
def test_wrong_signatures(kind: str, read: bool, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, expected = SIGNATURES[kind]
    decorated = f"@{kind}\ndef mine({given}): ..." if read else f"def mine({given}): ...\n\nmine = {kind}(mine)"
    as_file(place, monkeypatch, f"from diffexp import {kind}\n\n{decorated}\n")
    found = complaint(discover)
    assert found.startswith(f"plugins/own.py:{4 if read else 3}: ")
    assert expected in found


BROKEN = {
    "scheduler": ("scheduler(denoise, x, levels, noise)", "None", "returned a NoneType instead of a sample"),
    "scheduler of a plan": ("scheduler(levels)", "3", "returned a int instead of Plan"),
    "scheduler of another size": ("scheduler(denoise, x, levels, noise)", "x[..., :1]", "returned one of shape"),
    "k-diffusion sampler": ("scheduler(model, x, sigmas)", "x, sigmas", "returned a tuple instead of a sample"),
    "grid": ("grid(schedule, steps)", "[900, 500]", "returned a list instead of Levels"),
    "loop": ("loop(batch)", "batch.noise()[:1]", "returned one of shape [1, 16] instead of a tensor of shape [3, 16]"),
    "guidance": ("guidance(predict, scale)", "scale", "returned a float instead of a function (u, t, condition)"),
    "guidance of another size": (
        "guidance(predict, scale)",
        "lambda u, t, condition: predict(u, t, condition)[:1]",
        "returned one of shape [1, 16] instead of a tensor of shape [3, 16]",
    ),
    "model": ("model(runtime)", "runtime", "gave an object of type Runtime that lacks id, shape, schedule"),
    "metric": ("metric()", "dict()", "gave an object of type dict that lacks applies, compute"),
    "tracker": ("tracker()", "None", "lacks start, log_step, log_images, log_samples, finish"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_keep_its_word(
    case: str, base: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature, result, expected = BROKEN[case]
    kind, _, given = signature.partition("(")
    as_file(place, monkeypatch, f"from diffexp import {kind}\n\n@{kind}\ndef mine({given}:\n    return {result}\n")
    found = complaint(lambda: run(base, kind))
    assert found.startswith(f"plugins/own.py:4: {kind}=mine ")
    assert expected in found


def test_what_is_built_in_is_not_wrapped() -> None:
    catalog = discover()
    built = catalog.build("grid", {"name": "leading"})
    assert with_contract_checks(catalog.get("grid", "leading"), built) is built
    assert with_contract_checks(None, built) is built


def discover_line(text: str) -> int:
    """The line of the definition that is registered."""
    lines = textwrap.dedent(text).splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(("def mine", "class Mine")))
