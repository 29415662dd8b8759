"""A command line is composed and checked: every mistake is one line with the nearest valid spelling."""

import pytest

from diffexp.catalog.discover import discover
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.errors import InputError

MISTAKES = {
    "stepz=3": "unknown key 'stepz'; did you mean 'steps'?",
    "+stepz=3": "unknown key 'stepz'; did you mean 'steps'?",
    "eta=1": "unknown key 'eta'; did you mean 'scheduler.eta'?",
    "steps": "'steps' is not key=value: write steps=...",
    "steps=abc": "steps=abc is not an integer",
    "steps=1.5": "steps=1.5 is not an integer",
    "steps=null": "steps=null must have a value, it cannot be null",
    "steps=0": "steps=0 must be at least 1",
    "steps=-3": "steps=-3 must be at least 1",
    "steps.x=1": "unknown key 'steps.x': steps has no options, write steps=...",
    "num_samples=0": "num_samples=0 must be at least 1",
    "samples=64": "samples=64 is no kind of files (png, safetensors, tar); write num_samples=64",
    "samples=webdataset": "samples=webdataset is not known",
    "samples=tars": "samples=tars is not known; did you mean 'tar'?",
    "guidance_scale=nan": "guidance_scale=nan must be finite",
    "guidance_scale=inf": "guidance_scale=inf must be finite",
    "guidance_scale=-.inf": "guidance_scale=-.inf is not a number",
    "scheduler.eta=nan": "scheduler.eta=nan is not a number",
    "batch_size=0": "batch_size=0 must be at least 1",
    "snapshot_every=-1": "snapshot_every=-1 must be at least 0",
    "guidance_scale=x": "guidance_scale=x is not a number",
    "compile=maybe": "compile=maybe is not true or false",
    "tags=a": "tags=a is not a list",
    "label=1.5": "label=1.5 is not a class number or name, or a list of these",
    "prompt=3": "prompt=3 is not a text or a list of texts",
    "dtype=float31": "dtype=float31 is not known; did you mean 'float32'?",
    "device=gpu": "device=gpu is not one of auto, cpu, cuda, cuda:<number>, mps, xpu",
    "scheduler=ddimm": "scheduler=ddimm is not known; did you mean 'ddim'? (available: ",
    "scheduler=DDIM": "scheduler=DDIM is not known; did you mean 'ddim'? (available: ",
    "scheduler=[ddim,ddpm]": "scheduler=[ddim,ddpm] is not one scheduler (available: ",
    "scheduler=ddim,ddpm": "scheduler=ddim,ddpm lists several values: add -m to run them all",
    "scheduler.etaa=1": "unknown option 'scheduler.etaa' of scheduler=ddim; did you mean 'scheduler.eta'?",
    "+scheduler.etaa=1": "unknown option 'scheduler.etaa' of scheduler=ddim; did you mean 'scheduler.eta'?",
    "scheduler.eta=abc": "scheduler.eta=abc is not a number",
    "scheduler.name=x": "scheduler.name=x is not known (available: ",
    "guidance=diffusers": "guidance=diffusers needs guidance._target_=...",
    "model=hub": "model=hub needs model.id=...",
    "metric=fidd": "metric=fidd is not known; did you mean 'fid'? (available: ",
    "metric=fid,kid": "metric=fid,kid: for several metrics write metric=[fid,kid]",
    "tracker=null": "tracker=null is not known (available: ",
    "~tracker": "tracker needs a choice (available: ",
    "metric=reconstruction": "metric.reconstruction.image is that of loop.image, which is not there; give metric.",
    "grid.sigmas=3": "grid.sigmas=3 is not a list of float",
    "hydra.foo=1": "unknown option 'hydra.foo' (available: ",
    "hydra/launcher=nope": "hydra/launcher=nope is not known (available: basic",
    "experiment=nope": "experiment=nope is not known (available: compare_schedulers, debug",
    "label=[1,": "label=[1, cannot be read: ",
    "name=[a]": "name=[a] is not a string",
    "tags=[[a]]": "tags=[[a]] is not a list",
    f"tags=[b,{'a' * 65}]": f"tags=[b,{'a' * 65}] has a tag of 65 characters; W&B takes 1 to 64",
    "metric.fidd.features=3": "unknown option 'metric.fidd.features'; did you mean 'metric.fid'?",
    "~scheduler.foo": "unknown option 'scheduler.foo' of scheduler=ddim (available: eta",
    "steps='${nowhere}'": "steps is that of nowhere, which is not there; give steps=...",
}


@pytest.fixture(scope="module")
def preflight(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        catalog = discover()
        with hydra_session(catalog) as hydra:
            yield Preflight(hydra, catalog)


def complaint(preflight, words, multirun):
    with pytest.raises(InputError) as caught:
        preflight.check(words, multirun)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("word", "expected"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake(preflight, word, expected):
    assert complaint(preflight, [word], multirun=False).startswith(expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("steps=3,x", "steps=x is not an integer"),
        ("steps=3,0", "steps=0 must be at least 1"),
        ("steps=range(-1,3)", "steps=-1 must be at least 1"),
        ("scheduler=ddim,ddpn", "scheduler=ddpn is not known; did you mean 'ddpm'?"),
        ("scheduler=ddim,ddpm scheduler.etaa=0,1", "unknown option 'scheduler.etaa' of scheduler=ddim"),
        ("scheduler=ddpm,ddim scheduler.eta=0,x", "scheduler.eta=x is not a number"),
        ("scheduler=ddpm,ddim scheduler.eta=x", "scheduler.eta=x is not a number"),
        ("scheduler=dpmpp_2m,unipc scheduler.order=1,2,3,9", "scheduler.order=9 is not one of"),
        ("seed=range(0,1e9)", "seed=range(0,1e9) names more than 100000 values"),
        ("seed=shuffle(range(0,1000000000))", "seed=shuffle(range(0,1000000000)) names more than 100000 values"),
        ("seed=range(0,5,0)", "seed=range(0,5,0): range() arg 3 must not be zero"),
        ("seed=range(0,9999) steps=range(1,99)", "this sweep has 979902 cells, and 100000 are the most"),
        ("guidance=glob(diff*)", "guidance=diffusers needs guidance._target_=..."),
        ("workers=1,2", "workers=1,2: all cells have the same workers; give one value"),
        ("workers=0 steps=1,2", "workers=0 must be at least 1"),
        ("workers=2 hydra/launcher=batched", "workers=2: hydra/launcher=batched runs all cells in this process; leave"),
        (
            "workers=2 hydra/launcher=basic",
            "workers=2: hydra/launcher=basic has settings of its own; leave one of them",
        ),
        ("hydra.verbose=true,false", "hydra.verbose=true,false: the keys of Hydra itself cannot be swept"),
        *(
            (f"steps=1,2 hydra/launcher={engine} hydra.launcher.{word}", f"hydra.launcher.{word} {problem}")
            for engine, word, problem in (
                ("batched", "batch=0", "must be at least 1"),
                ("batched", "batch=x", "must be a whole number"),
                ("local", "batch=1.5", "must be a whole number"),
                ("slurm", "jobs=0", "must be at least 1"),
                ("slurm", "mem_gb=lots", "must be a number"),
                ("slurm", "mem_gb=0", "must be above 0"),
                ("slurm", "timeout_min=-1", "must be at least 1"),
                ("slurm", "slurm_array_parallelism=0", "must be at least 1"),
                ("slurm", "setup=module", "must be a list"),
                ("slurm", "additional_parameters=[1]", "must be keys with values"),
                ("slurm", "use_srun=2", "must be true or false"),
                ("slurm", "partition=[gpu]", "must be a text"),
                ("ray", "num_gpus=x", "must be a number"),
                ("ray", "num_cpus=-1", "must be at least 0"),
                ("ray", "resources=3", "must be keys with values"),
            )
        ),
        (
            "hydra/launcher=local hydra.launcher.wrkers=2",
            "unknown option 'hydra.launcher.wrkers' (available: engine, batch)",
        ),
        ("hydra/launcher=slurm hydra.launcher.partiton=gpu", "unknown option 'hydra.launcher.partiton'; did you mean"),
        ("hydra/launcher=slurm +hydra.launcher.partiton=gpu", "unknown option 'hydra.launcher.partiton'; did you mean"),
        ("hydra/launcher=local hydra.launcher.engine=slrum", "hydra.launcher.engine=slrum is not known; did you mean"),
        ("experiment=compare_schedulers hydra.sweeper.params.max_nfe='5,0'", "max_nfe=0 must be at least 1"),
    ],
)
def test_every_value_of_a_sweep_is_checked(preflight, words, expected):
    assert complaint(preflight, words.split(), multirun=True).startswith(expected)


@pytest.mark.parametrize(
    "words",
    [
        "steps=1,2,3 seed=range(0,20)",
        "scheduler=ddim,euler grid=glob(l*)",
        "metric=[fid,kid],[cost]",
        "scheduler=ddim scheduler.eta=0,0.5,1",
        "seed=choice(1,2)",
    ],
)
def test_sweeps_that_are_fine(preflight, words):
    assert preflight.check(words.split(), multirun=True).multirun


@pytest.mark.parametrize(
    "word",
    [
        "label=seven",
        "label=[1,two]",
        "prompt=[a,b]",
        "device=cuda:1",
        "guidance_scale=3",
        "snapshot_every=0",
        "name=a b",
        "name=2024",
        "steps='5'",
        "steps=${batch_size}",
        "guidance_scale='1.5'",
        "compile=yes",
        "tags=[1,2]",
    ],
)
def test_values_that_are_fine(preflight, word):
    assert not preflight.check([word], multirun=False).multirun


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=mnist"], 64),
        (["model=ddpm_church"], 4),
        (["model=hub", "model.id=here"], 4),
        (["model=sd15", "prompt=a cat"], 1),
        (["model=sd15", "prompt=[a cat,a dog]"], 2),
        (["model=pipeline", "model.id=here", "prompt=@{texts}"], 3),
        (["model=sd15", "prompt=@nowhere.txt"], 1),  # what is wrong with it is said when it is read
        (["model=sd15", "prompt=a cat", "num_samples=5"], 5),
    ],
)
def test_so_many_samples_that_the_first_pictures_are_soon_there(preflight, words, expected, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat\na dog\n\na bird\n")
    words = [word.format(texts=texts) for word in words]
    assert task_config(preflight.check(words, multirun=False).config)["num_samples"] == expected


@pytest.mark.parametrize(("word", "steps"), [("grid.timesteps=[999,500]", 2), ("grid.sigmas=[5,1,0.1,0]", 3)])
def test_a_list_of_levels_is_the_number_of_steps_in_the_record_and_the_name(preflight, word, steps):
    for more in ([], ["steps=7"]):
        config = preflight.check([word, *more], multirun=False).config
        assert task_config(config)["steps"] == steps
        assert f"_mnist_ddim_{steps}_" in config.hydra.run.dir
