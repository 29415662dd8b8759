"""Plugins are found without being imported, and every mistake in one is one line that says where."""

import subprocess
import sys
import textwrap

import pytest

from diffexp.catalog.discover import discover
from diffexp.catalog.scan import scan
from diffexp.catalog.types import MISSING
from diffexp.cli.help import help_text
from diffexp.errors import InputError

SCHEDULER = """
from diffexp import scheduler

@scheduler
def mine(denoise, x, levels, noise, *, eta: float = 0.5):
    '''My scheduler.'''
    return x
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Writes plugin files into ./plugins of an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFEXP_PLUGINS", raising=False)

    def write(**files: str) -> None:
        for name, text in files.items():
            file = tmp_path / "plugins" / (name.replace("__in__", "/") + ".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))

    return write


def options(entry):
    return {option.name: (str(option.type), option.default) for option in entry.options}


def message():
    with pytest.raises(InputError) as caught:
        discover()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_built_ins_are_found_without_importing_anything():
    code = (
        "import sys; from diffexp.catalog.discover import discover; c = discover()\n"
        "assert {('scheduler','ddim'), ('grid','karras'), ('metric','fid'), ('tracker','none')} <= set(c.entries)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'scipy', 'diffusers', 'wandb')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_dropped_file_is_an_option_and_is_not_imported(plugins):
    plugins(mine=SCHEDULER + "\nraise RuntimeError('imported')\n")
    entry = discover().get("scheduler", "mine")
    assert options(entry) == {"eta": ("float", 0.5)}
    assert (entry.style, entry.doc, entry.where) == ("function", "My scheduler.", "plugins/mine.py:5")
    assert not entry.built_in


@pytest.mark.parametrize(
    "text",
    [
        "import diffexp\n@diffexp.scheduler\n",
        "import diffexp as d\n@d.scheduler()\n",
        "from diffexp import scheduler as s\n@s\n",
        "from diffexp.catalog.register import scheduler\n@scheduler(name='mine')\n",
        "import diffexp.catalog.register\n@diffexp.catalog.register.scheduler\n",
        "from diffexp.catalog import register as r\n@r.scheduler\n",
        "try:\n    from diffexp import scheduler\nexcept ImportError:\n    pass\n@scheduler\n",
    ],
)
def test_every_way_to_name_the_decorator(text):
    (found,) = scan(text + "def mine(denoise, x, levels, noise): return x\n", "plugin.py")
    assert (found.registration.kind, found.registration.name) == ("scheduler", "mine")


def test_traits_and_name(plugins):
    plugins(a=SCHEDULER.replace("@scheduler", "@scheduler(name='other', discrete=True, order=2)"))
    assert discover().get("scheduler", "other").traits == {"discrete": True, "order": 2}


def test_types_and_defaults_of_options(plugins):
    plugins(
        a="""
        import math
        from typing import Literal, Optional
        from diffexp import metric
        SIZE = 2 * 8
        @metric
        class Mine:
            def __init__(self, *, a: int, b: float = 1 / 4, c: bool = True, d: str | None = None, e: Optional[int] = 3,
                         f: Literal["x", "y"] = "x", g: list[float] = [1.0, -2.0], h: tuple[int, ...] = (1, 2),
                         i=7, j: float = float("inf"), k: float = math.pi, size: int = SIZE, m: "int | str" = 1): ...
        """
    )
    assert options(discover().get("metric", "mine")) == {
        "a": ("int", MISSING),
        "b": ("float", 0.25),
        "c": ("bool", True),
        "d": ("str|null", None),
        "e": ("int|null", 3),
        "f": ("x|y", "x"),
        "g": ("list[float]", [1.0, -2.0]),
        "h": ("tuple[int]", [1, 2]),
        "i": ("number", 7),
        "j": ("float", float("inf")),
        "k": ("float", 3.141592653589793),
        "size": ("int", 16),
        "m": ("any|null", 1),
    }


K_DIFFUSION = """
import torch

@torch.no_grad()
def sample_{0}(model, x, sigmas, extra_args=None, callback=None, disable=None, s_churn=0., s_tmax=float('inf'),
               noise_sampler=None, eta=1., order=2):
    "A sampler."
    return x

def sample_by_range(model, x, sigma_min, sigma_max, n): ...
def helper(model, x, sigmas): ...
"""


def test_a_k_diffusion_file_runs_unchanged(plugins):
    plugins(samplers=K_DIFFUSION.format("held_back"))
    catalog = discover()
    entry = catalog.get("scheduler", "held_back")
    assert options(entry) == {
        "s_churn": ("float", 0.0),
        "s_tmax": ("float", float("inf")),
        "eta": ("float", 1.0),
        "order": ("number", 2),
    }
    assert entry.style == "k_diffusion"
    assert catalog.get("scheduler", "by_range").style == "k_diffusion"
    assert ("scheduler", "helper") not in catalog.entries
    assert catalog.build("scheduler", {"name": "held_back", "eta": 0.5}).keywords == {"eta": 0.5}


def test_a_whole_file_of_k_diffusion_samplers(plugins):
    """Nobody chose ``ddim`` as its name for diffexp, so the sampler steps aside; whoever decorates does choose."""
    plugins(theirs="\n".join(K_DIFFUSION.format(name) for name in ("one", "mine", "ddim")), own=SCHEDULER)
    catalog = discover()
    found = catalog.of_kind("scheduler")
    assert {"one", "sample_mine", "sample_ddim"} <= set(found)
    assert found["ddim"].built_in and found["mine"].where == "plugins/own.py:5"
    assert found["sample_ddim"].load().__name__ == "sample_ddim" and found["sample_ddim"].style == "k_diffusion"
    assert "[plugins/theirs.py; mine is another scheduler]" in help_text(catalog)


@pytest.mark.parametrize(("name", "called"), [("same", "same"), ("ddim", "sample_ddim")])
def test_two_undecorated_samplers_of_the_same_name(plugins, name, called):
    plugins(a=K_DIFFUSION.format(name), b=K_DIFFUSION.format(name))
    assert message() == f"two schedulers are called '{called}': plugins/a.py:5 and plugins/b.py:5"


def test_a_file_is_read_again_when_it_changes(plugins):
    plugins(a=SCHEDULER)
    assert options(discover().get("scheduler", "mine"))["eta"] == ("float", 0.5)
    plugins(a=SCHEDULER.replace("0.5", "0.25"))
    assert options(discover().get("scheduler", "mine"))["eta"] == ("float", 0.25)


def test_a_decorated_k_diffusion_function(plugins):
    plugins(
        a="""
        from diffexp import scheduler
        @scheduler(name="kd")
        def whatever(model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, *, zeta: int = 2): ...
        """
    )
    entry = discover().get("scheduler", "kd")
    assert (entry.style, list(options(entry))) == ("k_diffusion", ["eta", "zeta"])


def test_a_plan_function_and_a_class(plugins):
    plugins(
        a="""
        from diffexp import scheduler
        @scheduler
        def table(levels, *, order: int = 1): ...
        @scheduler
        class MyScheduler:
            def __init__(self, num_train_timesteps: int = 1000, beta_end: float = 0.02): ...
            def set_timesteps(self, steps): ...
            def step(self, output, t, x): ...
        """,
        b="""
        from diffusers import DDIMScheduler
        from diffexp import scheduler
        @scheduler
        class Tweaked(DDIMScheduler):
            def step(self, output, t, x): ...
        """,
    )
    catalog = discover()
    assert catalog.get("scheduler", "table").style == "plan"
    assert options(catalog.get("scheduler", "my_scheduler")) == {
        "num_train_timesteps": ("int|null", None),
        "beta_end": ("float|null", None),
    }
    assert [o.effective_default for o in catalog.get("scheduler", "my_scheduler").options] == [1000, 0.02]
    assert catalog.get("scheduler", "tweaked").accepts_any_option
    assert "diffusers" not in catalog.get("scheduler", "tweaked").doc


def test_what_the_text_does_not_tell_is_imported(plugins):
    plugins(
        a="""
        from diffexp import scheduler
        def make(power):
            def f(denoise, x, levels, noise, *, rho: float = float(power), mode: str | None = None): return x
            return f
        squared = scheduler(name="squared")(make(2))
        """,
        b="""
        from diffexp import metric
        DEFAULTS = dict(size=3)
        @metric
        def counted(*, size: int = DEFAULTS["size"]): return size
        """,
        c="""
        from dataclasses import dataclass
        from diffexp import tracker
        @tracker
        @dataclass(kw_only=True)
        class Mine:
            project: str = "p"
        """,
    )
    catalog = discover()
    assert options(catalog.get("scheduler", "squared")) == {"rho": ("float", 2.0), "mode": ("str|null", None)}
    assert options(catalog.get("metric", "counted")) == {"size": ("int", 3)}
    assert catalog.build("metric", {"name": "counted", "size": 4}) == 4
    assert catalog.build("tracker", {"name": "mine"}).project == "p"


def test_a_parameter_called_model_is_not_the_decorator():
    text = (
        "from diffexp import model, scheduler\n"
        "@scheduler\ndef mine(denoise, x, levels, noise):\n    model = denoise\n    return model(x)\n"
    )
    assert [found.registration.kind for found in scan(text, "plugin.py")] == ["scheduler"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@scheduler\ndef f(model, x): ...", "a scheduler is a function (denoise, x, levels, noise, *, options)"),
        ("@scheduler\nclass C: ...", "set_timesteps and step"),
        ("@scheduler\ndef f(denoise, x, levels, noise, eta=0): ...", "put '*' before eta"),
        ("@grid\ndef f(steps): ...", "a grid has the signature (schedule, steps, *, options); found (steps)"),
        ("@loop\ndef f(*, a: int = 1): ...", "a loop has the signature (batch, *, options)"),
        ("@guidance\ndef f(predict): ...", "a guidance has the signature (predict, scale, *, options)"),
        ("@model\ndef f(): ...", "a model has the signature (runtime, *, options)"),
        ("@metric\nclass M:\n    def __init__(self, size): ...", "put '*' before size"),
        ("@tracker\ndef t(*, name: str = 'x'): ...", "cannot be called name"),
        ("@grid\ndef f(schedule, steps, *, sigmas: int = 1): ...", "cannot be called sigmas"),
        ("@scheduler('x')\ndef f(denoise, x, levels, noise): ...", "takes keywords only"),
        ("@scheduler(name='a b')\ndef f(denoise, x, levels, noise): ...", "'a b' cannot be a name"),
    ],
)
def test_wrong_signatures(plugins, text, expected):
    plugins(bad="from diffexp import scheduler, grid, loop, guidance, model, metric, tracker\n\n" + text)
    found = message()
    assert found.startswith("plugins/bad.py:")
    assert expected in found


def test_a_syntax_error(plugins):
    plugins(bad="from diffexp import scheduler\n\n@scheduler\ndef f(:\n")
    assert message().startswith("plugins/bad.py:4: ")


def test_two_plugins_of_the_same_name(plugins):
    plugins(a=SCHEDULER, b=SCHEDULER.replace("def mine", "def MINE"))
    assert message() == "two schedulers are called 'MINE': plugins/a.py:5 and plugins/b.py:5"


def test_a_plugin_named_like_a_built_in(plugins):
    plugins(a=SCHEDULER.replace("def mine", "def ddim"))
    text = message()
    assert "schedulers/ddim.py:" in text
    assert "plugins/a.py:5" in text


def test_a_plugin_named_like_a_yaml_option(plugins, tmp_path):
    folder = tmp_path / "plugins" / "mine" / "conf" / "model"
    folder.mkdir(parents=True)
    (folder / "ddpm_church.yaml").write_text("name: hub\n")
    text = message()
    assert "conf/model/ddpm_church.yaml and plugins/mine/conf/model/ddpm_church.yaml" in text


def test_a_plugin_that_cannot_be_imported_names_the_line(plugins):
    plugins(a=SCHEDULER + "\nimport not_there_at_all\n")
    entry = discover().get("scheduler", "mine")
    with pytest.raises(InputError) as caught:
        entry.load()
    assert str(caught.value) == (
        "plugins/a.py:9: the plugin cannot be imported: ModuleNotFoundError: No module named 'not_there_at_all'"
    )


def test_plugin_names_shadow_nothing(plugins):
    plugins(timeit=SCHEDULER, json=SCHEDULER.replace("mine", "other"))
    catalog = discover()
    assert catalog.get("scheduler", "mine").load().__name__ == "mine"
    assert catalog.get("scheduler", "other").load().__name__ == "other"
    assert "plugins" not in str(__import__("timeit").__file__)
    assert not any("plugins" in path for path in sys.path if path.startswith(str(catalog.plugin_paths[0].parent)))


def test_a_folder_plugin_has_relative_imports_and_skips_its_tests(plugins, tmp_path):
    plugins(
        foo__in____init__="",
        foo__in__solver="""
        from diffexp import scheduler
        from .helper import VALUE
        @scheduler
        def solver(denoise, x, levels, noise): return VALUE
        """,
        foo__in__helper="VALUE = 42\n",
        foo__in__test_solver="from diffexp import scheduler\nscheduler(1)",
        foo__in__conftest="from diffexp import scheduler\nscheduler(1)",
        bar__in__alone="from diffexp import grid\n@grid\ndef alone(schedule, steps): return 1\n",
    )
    (tmp_path / "plugins" / "foo" / "conf").mkdir()
    catalog = discover()
    assert catalog.get("scheduler", "solver").load()(0, 0, 0, 0) == 42
    assert catalog.get("grid", "alone").load()(0, 0) == 1
    assert catalog.conf_dirs[1:] == (tmp_path / "plugins" / "foo" / "conf",)


def test_the_environment_names_files_and_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "one.py"
    file.write_text(SCHEDULER)
    monkeypatch.setenv("DIFFEXP_PLUGINS", str(file))
    assert discover().plugin_paths == (file,)
    monkeypatch.setenv("DIFFEXP_PLUGINS", "nowhere")
    assert message() == "DIFFEXP_PLUGINS names nowhere, which does not exist"


def test_an_installed_package_registers_by_entry_point(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "site"
    (site / "their_package").mkdir(parents=True)
    (site / "their_package" / "__init__.py").write_text("")
    (site / "their_package" / "solver.py").write_text(SCHEDULER)
    (site / "theirs-1.0.dist-info").mkdir()
    (site / "theirs-1.0.dist-info" / "entry_points.txt").write_text("[diffexp.plugins]\nx = their_package\n")
    monkeypatch.syspath_prepend(str(site))
    entry = discover().get("scheduler", "mine")
    assert entry.source.module == "their_package.solver"
    assert entry.load().__module__ == "their_package.solver"


def test_build(plugins):
    plugins(
        a=SCHEDULER,
        b="from diffexp import metric\n@metric\ndef pair(*, sizes: tuple[int, ...] = (1,)): return sizes\n",
        c="from diffexp import grid\n@grid\ndef mygrid(schedule, steps, *, rho: float = 7.0): return rho\n",
    )
    catalog = discover()
    bound = catalog.build("scheduler", {"name": "mine", "eta": 0.1})
    assert (bound.func.__name__, bound.keywords) == ("mine", {"eta": 0.1})
    assert catalog.build("metric", {"name": "pair", "sizes": [3, 4]}) == (3, 4)
    assert catalog.build("grid", {"name": "mygrid", "rho": 2.0, "timesteps": None, "sigmas": None})(0, 0) == 2.0
    bound = catalog.build("scheduler", {"name": "x", "_target_": "fractions.Fraction", "numerator": 3})
    assert bound() == 3
    with pytest.raises(
        InputError, match=r"unknown option 'scheduler.etaa' of scheduler=mine; did you mean 'scheduler.eta'"
    ):
        catalog.build("scheduler", {"name": "mine", "etaa": 1})
    with pytest.raises(InputError, match="scheduler=mie is not known; did you mean 'mine'"):
        catalog.build("scheduler", {"name": "mie"})
    with pytest.raises(InputError, match=r"unknown option 'scheduler.top'"):
        catalog.build("scheduler", {"name": "x", "_target_": "fractions.Fraction", "top": 3})
    with pytest.raises(InputError, match=r"fractions.Fractio does not exist; did you mean 'Fraction'"):
        catalog.build("scheduler", {"name": "x", "_target_": "fractions.Fractio"})
