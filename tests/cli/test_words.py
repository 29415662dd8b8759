"""Prompts are text, and what people type who come from elsewhere is answered with its name here."""

from collections.abc import Iterator

import pytest

from diffexp.catalog.discover import Catalog, discover
from diffexp.catalog.keys import BY_NAME, TOP_LEVEL
from diffexp.catalog.kinds import KINDS
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.cli.names import KnownNames
from diffexp.cli.spellings import table
from diffexp.errors import InputError


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        yield discover()


@pytest.fixture(scope="module")
def preflight(catalog: Catalog) -> Iterator[Preflight]:
    with hydra_session(catalog) as loader:
        yield Preflight(loader, catalog)


TEXTS = {
    "a cat, sitting": "a cat, sitting",
    "a cat,a dog": "a cat,a dog",
    "(masterpiece:1.2), best quality": "(masterpiece:1.2), best quality",
    "a [cat:dog:0.5] on a mat": "a [cat:dog:0.5] on a mat",
    "[cat:dog:0.5], sitting": "[cat:dog:0.5], sitting",
    "a {red|blue} cat": "a {red|blue} cat",
    r"cat \(anime\)": r"cat \(anime\)",
    "it's a cat": "it's a cat",
    '\'tis a "cat"': '\'tis a "cat"',
    "a cat = a dog": "a cat = a dog",
    "ein Kätzchen, süß 猫": "ein Kätzchen, süß 猫",
    "<lora:cat:0.8> cat": "<lora:cat:0.8> cat",
    "two  spaces\nand lines": "two  spaces\nand lines",
    "costs ${5": "costs ${5",
    "ends with a backslash\\": "ends with a backslash\\",
    "range(3)": "range(3)",
    '"a cat, sitting"': "a cat, sitting",
    "[a cat,a dog]": ["a cat", "a dog"],
    '["a cat, sitting",a dog]': ["a cat, sitting", "a dog"],
    '["[cat:dog:0.5]"]': ["[cat:dog:0.5]"],
    "seven": "seven",
    "null": None,
    "@@name": "@@name",
}


@pytest.mark.parametrize("multirun", [False, True], ids=["run", "sweep"])
@pytest.mark.parametrize(("typed", "expected"), TEXTS.items())
def test_a_prompt_is_text(preflight: Preflight, typed: str, expected: object, multirun: bool) -> None:
    checked = preflight.check([f"prompt={typed}", "steps=3"], multirun)
    assert task_config(checked.config)["prompt"] == expected
    if multirun:
        assert checked.cells is not None and len(checked.cells) == 1
        again = preflight.check(checked.cells[0], multirun=False)  # the words of the cell are the same again
        assert task_config(again.config)["prompt"] == expected


@pytest.mark.parametrize("key", ["negative_prompt", "notes", "name", "loop=inversion loop.image=x.png loop.source"])
def test_so_are_other_texts(preflight: Preflight, key: str) -> None:
    *words, key = key.split()
    config = task_config(preflight.check([*words, f"{key}=a cat, (sitting)"], multirun=False).config)
    assert "a cat, (sitting)" in (config.get(key), config["loop"].get("source"))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ('"a cat, sitting","a dog"', ["a cat, sitting", "a dog"]),
        ("'a cat','a dog, lying'", ["a cat", "a dog, lying"]),
        ("[a cat,a dog],[a bird,a fish]", [["a cat", "a dog"], ["a bird", "a fish"]]),
        ("choice(a cat,a dog)", ["a cat", "a dog"]),
    ],
)
def test_a_sweep_over_prompts_is_quoted_texts_or_lists(preflight: Preflight, typed: str, expected: list[str]) -> None:
    cells = preflight.check([f"prompt={typed}"], multirun=True).cells or []
    assert [task_config(preflight.check(cell, multirun=False).config)["prompt"] for cell in cells] == expected
    with pytest.raises(InputError, match="lists several values: add -m to run them all"):
        preflight.check([f"prompt={typed}"], multirun=False)


@pytest.mark.parametrize("typed", ["[cat:dog:0.5]", "[cat|dog]", "[cat]", "[[cat]]", "[a cat:a dog, sitting:0.5]"])
def test_brackets_around_a_text_are_not_lost(preflight: Preflight, typed: str) -> None:
    with pytest.raises(InputError) as caught:
        preflight.check([f"prompt={typed}"], multirun=False)
    assert str(caught.value).startswith(f"prompt={typed} may be a list or a text: write 'prompt=[\"")
    _, listed, _, kept, _ = str(caught.value).split("'")
    for word, expected in ((listed, [typed[1:-1]]), (kept, typed)):
        assert task_config(preflight.check([word], multirun=False).config)["prompt"] == expected


MEANT = {
    "num_inference_steps=20": "steps",
    "--steps 20": "steps=20",
    "cfg=7": "guidance_scale",
    "cfg-scale=7": "guidance_scale",
    "CFG_Scale=7": "guidance_scale",
    "guidance=7.5": "guidance_scale=7.5",
    "sampler=euler": "scheduler",
    "sampler_name=euler": "scheduler",
    "sampler.eta=1": "scheduler.eta",
    "width=512": "model.width",
    "H=512": "model.height",
    "n=4": "num_samples",
    "-n 4": "num_samples=4",
    "batch=4": "batch_size",
    "prompts=cat": "prompt",
    "neg=blurry": "negative_prompt",
    "ckpt=x": "model",
    "denoising_strength=0.5": "loop.strength",
    "outdir=here": "hydra.run.dir",
    "eta=1": "scheduler.eta",
    "metric.features=mnist_cnn": "metric.fid.features",
    "metric=[fid,clip]": "clip_score",
    "experiment=compare": "compare_schedulers",
    "model=runwayml/stable-diffusion-v1-5": "model=pipeline model.id=runwayml/stable-diffusion-v1-5",
    "model=v1-5.safetensors": "model=pipeline model.id=v1-5.safetensors",
    "scheduler=euler_a": "euler_ancestral",
    "scheduler=Euler a": "euler_ancestral",
    "scheduler=dpm++ 2m karras": "scheduler=dpmpp_2m grid=karras",
    "scheduler=DPM++ 3M SDE Exponential": "scheduler=dpmpp_3m grid=exponential",
    "scheduler=dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "scheduler=sample_heun": "heun",
    "scheduler=plms": "pndm",
    "scheduler=karras": "grid=karras",
    "scheduler=simple": "grid=trailing",
    "scheduler=EulerDiscreteScheduler": "diffusers/euler",
    "grid=ddim_uniform": "leading",
    "grid=euler": "scheduler=euler",
}


@pytest.mark.parametrize(("typed", "meant"), MEANT.items())
def test_what_is_typed_elsewhere_is_answered_with_its_name_here(preflight: Preflight, typed: str, meant: str) -> None:
    def check() -> None:
        if typed.startswith("-"):
            preflight.names.check_flags(typed.split(" "), known=["--cfg"])
        preflight.check([typed], multirun=False)

    with pytest.raises(InputError) as caught:
        check()
    assert f"did you mean '{meant}'?" in str(caught.value) or f"write {meant} (see --help)" in str(caught.value)


def test_every_name_in_the_table_is_one_of_ours(catalog: Catalog) -> None:
    names, entries = KnownNames.of(catalog), list(catalog.entries.values())
    options = {f"{KINDS[one.kind].path(one.name)}.{option.name}" for one in entries for option in one.options}
    options |= {f"{kind.name}.{option.name}" for kind in KINDS.values() for option in kind.common}
    for word, key in table()["keys"].items():
        assert key in {*TOP_LEVEL, "experiment", *options} or key.startswith("hydra."), key
        assert word not in TOP_LEVEL, word
    for group, meant in table().items():
        if group != "keys":
            for word, name in meant.items():
                choice, *more = name.split(" ")
                assert choice in names.groups[group] and word not in names.groups[group], (group, word)
                assert all(one.partition("=")[0] in {*KINDS, *options} for one in more)


def test_an_option_is_crossed_with_the_choices_that_have_it(preflight: Preflight) -> None:
    def cells(*words: str) -> list[str]:
        return [" ".join(cell) for cell in preflight.check(words, multirun=True).cells or []]

    ddpm, ddim = "scheduler=ddpm", "scheduler=ddim"
    assert cells("scheduler=ddpm,ddim", "scheduler.eta=0,1") == [
        ddpm,
        f"{ddim} scheduler.eta=0",
        f"{ddim} scheduler.eta=1",
    ]
    assert cells("scheduler.eta=0.5", "scheduler=ddpm,ddim") == [ddpm, f"scheduler.eta=0.5 {ddim}"]
    found = cells("scheduler=ddpm,ddim", "scheduler.eta=0,1", "scheduler.variance=fixed_small,fixed_large", "steps=3,4")
    assert len(found) == len(set(found)) == 8
    assert all(("eta" in cell) == (ddim in cell) and ("variance" in cell) == (ddpm in cell) for cell in found)
    assert cells("grid=linspace,karras", "grid.rho=5,7") == [
        "grid=linspace",
        "grid=karras grid.rho=5",
        "grid=karras grid.rho=7",
    ]
    assert cells("metric=[fid],[cost]", "metric.fid.features=mnist_cnn") == [
        "metric=[fid] metric.fid.features=mnist_cnn",
        "metric=[cost]",
    ]
    assert cells("seed=0,0", "steps=3") == ["seed=0 steps=3"] * 2
    assert len(cells("experiment=compare_schedulers", "max_nfe=4", "scheduler.eta=0,1")) == 9
    with pytest.raises(InputError, match=r"unknown option 'scheduler\.etaa' of scheduler=ddpm"):
        cells("scheduler=ddpm,ddim", "scheduler.etaa=0,1")


RAW = {
    "snapshot_every=??? -m": "snapshot_every=??? must have a value",
    "scheduler.name=${resume}": "scheduler.name=null is not known",
    "tags=${steps}": "tags=50 is not a list of str",
    "~label": "~label: every run has the key label",
    "~hydra/sweeper=1_000": "~hydra/sweeper=1_000: ",
    "+tags=1": "+tags=1: tags is there already; write tags=1",
    "+steps=3": "+steps=3: steps is there already; write steps=3",
    "@grid.timesteps=1": "'@grid.timesteps=1' names no key",
    "~=": "'~=' names no key",
    "++tags=[[1]] -m": "tags=[[1]] is not a list of str",
    f"seed={'9' * 5000}": "seed=999",
    "steps=${steps}": "steps: Recursive interpolation",
    "name=${oc.env:NOWHERE}": "name: KeyError raised while resolving",
    "hydra.nothing=1": "unknown option 'hydra.nothing'",
    "guidance=diffusers/fdg": "guidance=diffusers/fdg needs kornia",
    "metric.psnr.x=1": "metric.psnr has no effect without metric=psnr",
    "steps": "'steps' is not key=value: write steps=...",
    "scheduler.eta": "'scheduler.eta' is not key=value: write scheduler.eta=...",
    "label=[1": "label=[1 cannot be read: ",
}


@pytest.mark.parametrize(("typed", "expected"), RAW.items(), ids=[word[:30] for word in RAW])
def test_no_error_is_raw(preflight: Preflight, typed: str, expected: str) -> None:
    words = typed.split(" ")
    with pytest.raises(InputError) as caught:
        preflight.check([word for word in words if word != "-m"], "-m" in words)
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


def test_every_text_key_is_in_the_table() -> None:
    assert [key.name for key in BY_NAME.values() if key.is_text] == ["prompt", "negative_prompt", "name", "notes"]
