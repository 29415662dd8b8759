"""Every option of every group composes, and the configs say what the code does."""

from importlib.util import find_spec

import pytest
import yaml

from diffexp.catalog.discover import discover, yaml_options
from diffexp.catalog.keys import BY_NAME, DEFAULT_CHOICES, KEYS, TOP_LEVEL
from diffexp.catalog.kinds import KINDS
from diffexp.catalog.sources import conf_dir
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.cli.names import KnownNames
from diffexp.errors import InputError

CONFIG_FILE = conf_dir() / "config.yaml"
GROUPS = KnownNames.of(discover()).groups
CHOICES = [(group, option) for group, options in GROUPS.items() for option in options]


@pytest.fixture(scope="module")
def preflight():
    catalog = discover()
    with hydra_session(catalog) as loader:
        return Preflight(loader, catalog)


def required(preflight, group, option):
    """The keys that an option cannot do without."""
    extra = [f"{group}._target_=diffusers.DDIMScheduler"] if option == "diffusers" else []
    entry = preflight.catalog.entries.get((group, option))
    path = KINDS[group].path(option) if group in KINDS else group
    options = entry.options if entry else ()
    return extra + [f"{path}.{own.name}=1" for own in options if str(own.default).startswith(("???", "${"))]


@pytest.mark.parametrize(("group", "option"), CHOICES, ids=lambda part: str(part))
def test_every_option_composes(preflight, group, option):
    if (group, option) == ("experiment", "search"):
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    if option == "diffusers/fdg" and find_spec("kornia") is None:
        with pytest.raises(
            InputError, match="guidance=diffusers/fdg needs kornia, which is not installed: pip install"
        ):
            preflight.check([f"{group}={option}"], multirun=False)
        return
    checked = preflight.check([f"{group}={option}", *required(preflight, group, option)], multirun=False)
    assert checked.config.hydra.job.chdir is False
    if group == "grid":
        assert {"timesteps", "sigmas"} <= set(checked.config.grid)


def test_the_default_experiment(preflight):
    config = preflight.check([], multirun=False).config
    assert list(config.metric) == ["cost", "fid", "kid", "wasserstein"]
    assert list(config.tracker) == ["wandb"]
    assert {kind: config[kind].name for kind, own in KINDS.items() if not own.several} == {
        "model": "mnist",
        "scheduler": "ddim",
        "grid": "auto",
        "loop": "denoise",
        "guidance": "cfg",
    }
    values = {key: config[key] for key in BY_NAME}
    assert values == {
        **dict.fromkeys(BY_NAME),
        "steps": 50,
        "seed": 0,
        "batch_size": 64,
        "device": "auto",
        "dtype": "auto",
        "compile": False,
        "pipe": {},
        "samples": "png",
        "tags": [],
    }


def test_the_keys_and_the_file_agree(preflight):
    content = yaml.safe_load(CONFIG_FILE.read_text())
    assert set(preflight.check([], multirun=False).config) - {"hydra"} == set(TOP_LEVEL)
    assert [key for key in content if key not in ("defaults", "hydra")] == list(BY_NAME)


WRONG = {"int": "1.5", "float": "x", "str": "[a]", "bool": "maybe", "list": "a", "any": "1.5", "text": "3"}
NOUNS = {"int": "an integer", "float": "a number", "str": "a string", "bool": "true or false", "list": "a list of str"}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_value_of_another_type_than_that_of_the_table_is_refused(preflight, key):
    word = f"{key.name}={WRONG[key.type.base]}"
    with pytest.raises(InputError, match=NOUNS.get(key.type.base, " or a list of ") + "|is not known|is not one of"):
        preflight.check([word], multirun=False)


def test_the_file_repeats_the_table():
    content = yaml.safe_load(CONFIG_FILE.read_text())
    listed = {group: choice for item in content["defaults"] if isinstance(item, dict) for group, choice in item.items()}
    assert {group: listed[group] for group in KINDS} == dict(DEFAULT_CHOICES)
    lines = CONFIG_FILE.read_text().splitlines()
    for key in KEYS:
        assert content[key.name] == (list(key.default) if isinstance(key.default, tuple) else key.default)
        (line,) = [line for line in lines if line.startswith(f"{key.name}:")]
        assert line.partition(" # ")[2] == key.help


def test_every_key_has_a_comment():
    lines = CONFIG_FILE.read_text().splitlines()
    for key in BY_NAME:
        (line,) = [line for line in lines if line.startswith(f"{key}:")]
        assert " # " in line


@pytest.mark.parametrize("name", ["church", "cat", "celebahq"])
def test_presets_of_real_checkpoints(preflight, name):
    model = preflight.check([f"model=ddpm_{name}"], multirun=False).config.model
    assert (model.name, model.id, model.allow_pickle) == ("hub", f"google/ddpm-{name}-256", False)


def test_a_preset_takes_the_options_of_what_it_presets(preflight):
    assert preflight.check(["model=ddpm_cat", "model.revision=main"], multirun=False).config.model.revision == "main"
    with pytest.raises(InputError, match=r"unknown option 'model.idd'"):
        preflight.check(["model=ddpm_cat", "model.idd=x"], multirun=False)


def test_experiments(preflight):
    debug = preflight.check(["experiment=debug"], multirun=False)
    assert (list(debug.config.tracker), list(debug.config.metric), debug.multirun) == (["none"], ["cost"], False)
    assert preflight.check(["experiment=compare_schedulers"], multirun=False).multirun


def test_every_yaml_option_has_a_description():
    for _, name, file in yaml_options(conf_dir()):
        assert any(line.startswith("# ") and "@package" not in line for line in file.read_text().splitlines()), name
