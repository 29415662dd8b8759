"""The decorators: what they leave on an object, and nothing else."""

import subprocess
import sys

import pytest
from hypothesis import given, strategies as st

import diffexp
from diffexp.catalog import register as registry
from diffexp.catalog.kinds import KINDS
from diffexp.catalog.register import Registration, default_name, registration


@pytest.mark.parametrize("kind", KINDS)
def test_bare_decorator_takes_the_function_name(kind):
    def mine(): ...

    assert getattr(diffexp, kind)(mine) is mine
    assert registration(mine) == Registration(kind, "mine", {})


def test_called_decorator_takes_a_name_and_traits():
    @diffexp.scheduler(name="other", discrete=True)
    def mine(): ...

    assert registration(mine) == Registration("scheduler", "other", {"discrete": True})


def test_class_is_named_in_snake_case():
    @registry.metric
    class MyFidScore: ...

    found = registration(MyFidScore)
    assert found is not None
    assert found.name == "my_fid_score"


@pytest.mark.parametrize(
    ("identifier", "name"), [("FID", "fid"), ("MyFID", "my_fid"), ("DDIM2", "ddim2"), ("KIDScore", "kid_score")]
)
def test_default_name_of_classes(identifier, name):
    assert default_name(identifier, is_class=True) == name


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True))
def test_default_name_only_lowers_and_separates(identifier):
    assert default_name(identifier, is_class=True).replace("_", "") == identifier.lower().replace("_", "")
    assert default_name(identifier, is_class=False) == identifier


def test_registration_is_not_inherited():
    @registry.tracker
    class Base: ...

    class Derived(Base): ...

    assert registration(Base) is not None
    assert registration(Derived) is None


def test_positional_arguments_are_refused():
    with pytest.raises(TypeError, match="keywords only"):
        registry.metric(*["fid"])


def test_unknown_attribute_of_the_package():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = diffexp.nothing_like_it
    assert {"scheduler", "run", "compile"} <= set(dir(diffexp))


def test_importing_the_light_modules_imports_nothing_heavy():
    code = (
        "import sys, diffexp, diffexp.catalog.register, diffexp.catalog.discover\n"
        "import diffexp.cli, diffexp.cli.help, diffexp.catalog.keys\n"
        "from diffexp import scheduler\n"
        "heavy = {'torch', 'diffusers', 'wandb', 'torchmetrics', 'numpy', 'scipy', 'hydra', 'omegaconf'}\n"
        "print(sorted(heavy & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
