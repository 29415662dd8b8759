"""Compiled plans are kept in memory and on disk, and are those that a fresh compilation gives."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

from diffexp.components import plan_cache
from diffexp.components.grids.choice import Grid
from diffexp.components.plan_cache import NoKey, cached_or_compiled, key_of
from diffexp.components.sampler import bind
from diffexp.components.schedulers.ddim import ddim
from diffexp.components.schedulers.ddpm import ddpm
from diffexp.components.schedulers.unipc import unipc
from diffexp.files import prune
from diffexp.plan.compile import Direct, compile_or_direct
from diffexp.plan.method import FunctionMethod, Method, drives_object
from diffexp.plan.predictions import Clip, Prediction
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

TRAINING = Training(VPSchedule.from_betas(), clip=Clip())
SCHEDULERS = (ddpm, unipc, DDIMScheduler, EulerAncestralDiscreteScheduler)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DIFFEXP_CACHE", str(tmp_path))
    monkeypatch.setattr(plan_cache, "_known", {})
    return tmp_path / "plans"


def forget() -> None:
    plan_cache._known.clear()


def refuse(method: Method) -> Plan:
    raise AssertionError(f"{method.name} is compiled again")


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda one: one.__name__)
def test_a_plan_from_the_disk_is_that_of_a_fresh_compilation(scheduler, monkeypatch):
    fresh = compile_or_direct(bind(scheduler, steps=6, training=TRAINING))
    first = cached_or_compiled(bind(scheduler, steps=6, training=TRAINING))
    monkeypatch.setattr(plan_cache, "compile_or_direct", refuse)
    assert cached_or_compiled(bind(scheduler, steps=6, training=TRAINING)) is first
    forget()
    method = bind(scheduler, steps=6, training=TRAINING)
    found = cached_or_compiled(method)
    assert isinstance(fresh, Plan) and isinstance(found, Plan)
    assert (found, found.sha256, found.to_csv(), found.name) == (fresh, fresh.sha256, fresh.to_csv(), fresh.name)
    assert found.source is method


def keys() -> dict[str, str]:
    """The keys of methods that differ in one thing."""
    vp = VPSchedule.from_betas()
    training = {
        "schedule": Training(VPSchedule.from_betas(beta_end=0.021), clip=Clip()),
        "final": replace(TRAINING, schedule=replace(vp, final=vp.at(0))),
        "prediction": replace(TRAINING, prediction=Prediction.SAMPLE),
        "no clip": replace(TRAINING, clip=None),
        "other clip": replace(TRAINING, clip=Clip(2.0)),
    }
    object_method = bind(DDIMScheduler, steps=6, training=TRAINING)
    assert drives_object(object_method)
    methods = {
        "plain": bind(ddim, steps=6, training=TRAINING),
        "function": bind(ddpm, steps=6, training=TRAINING),
        "steps": bind(ddim, steps=7, training=TRAINING),
        "option": bind(ddim, steps=6, training=TRAINING, options={"eta": 0.5}),
        "type": bind(ddim, steps=6, training=TRAINING, options={"eta": 0}),
        "given": bind(ddim, steps=6, training=TRAINING, options={"eta": 0.0}),
        "grid": bind(ddim, steps=3, training=TRAINING, grid=Grid("auto", None, [900, 500, 10])),
        "part": bind(ddim, steps=6, training=TRAINING).part(2, 6),
        "class": bind(DDIMScheduler, steps=6, training=TRAINING),
        "class option": bind(DDIMScheduler, steps=6, training=TRAINING, options={"eta": 0.5}),
        "class part": bind(DDIMScheduler, steps=6, training=TRAINING).part(2, 6),
        "precision": object_method.in_own_precision(),
        **{name: bind(ddim, steps=6, training=own) for name, own in training.items()},
        **{f"class {name}": bind(DDIMScheduler, steps=6, training=own) for name, own in training.items()},
    }
    return {name: key_of(method) for name, method in methods.items()}


def test_whatever_determines_a_plan_is_in_its_key(monkeypatch):
    found = keys()
    assert len(set(found.values())) == len(found)
    assert keys() == found
    plan_cache._surroundings.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(plan_cache, "version", lambda name: "another")
        assert not set(keys().values()) & set(found.values())
    plan_cache._surroundings.cache_clear()
    assert keys() == found


def test_code_that_cannot_be_hashed_is_compiled_anew(folder):
    def mine(denoise, x, levels, noise):
        for here, there in levels.pairs():
            x = denoise(x, here) * there.alpha
        return x

    class Mine(DDIMScheduler):
        pass

    for scheduler in (mine, Mine):
        method = bind(scheduler, steps=3, training=TRAINING)
        with pytest.raises(NoKey):
            key_of(method)
        assert isinstance(cached_or_compiled(method), Plan)
    method = bind(ddim, steps=3, training=TRAINING, options={"eta": object()})
    with pytest.raises(NoKey):
        key_of(method)
    assert not folder.exists()


def test_what_is_no_plan_is_not_stored(folder):
    method = bind(ddim, steps=3, training=TRAINING)
    assert isinstance(method, FunctionMethod)
    method = replace(method, adaptive=True)
    assert isinstance(cached_or_compiled(method), Direct)
    assert isinstance(cached_or_compiled(method), Direct)
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"rows": 3}', "half", "number", "row"])
def test_a_damaged_file_is_replaced(folder, damage):
    method = bind(ddpm, steps=4, training=TRAINING)
    plan = cached_or_compiled(method)
    (file,) = folder.iterdir()
    whole = file.read_text()
    content = json.loads(whole)
    if damage == "number":
        content["rows"][1]["x"][0] += 1e-12
        damage = json.dumps(content)
    elif damage == "row":
        content["rows"][1].popitem()
        damage = json.dumps(content)
    file.write_text(whole[: len(whole) // 2] if damage == "half" else damage)
    forget()
    assert cached_or_compiled(method) == plan
    assert file.read_text() == whole


def test_many_writers_leave_one_whole_file(folder):
    def compile_anew(_: int) -> str:
        forget()
        sampler = cached_or_compiled(bind(ddim, steps=5, training=TRAINING))
        assert isinstance(sampler, Plan)
        return sampler.sha256

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(compile_anew, range(24)))) == 1
    assert len(list(folder.iterdir())) == 1


def test_the_cache_can_be_disabled_and_is_no_reason_to_fail(folder, monkeypatch):
    monkeypatch.setenv("DIFFEXP_CACHE", "off")
    assert isinstance(cached_or_compiled(bind(ddim, steps=3, training=TRAINING)), Plan)
    assert not folder.exists()
    (folder.parent / "file").write_text("")
    monkeypatch.setenv("DIFFEXP_CACHE", str(folder.parent / "file"))
    forget()
    assert isinstance(cached_or_compiled(bind(ddim, steps=3, training=TRAINING)), Plan)
    monkeypatch.delenv("DIFFEXP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "xdg"))
    forget()
    assert isinstance(cached_or_compiled(bind(ddim, steps=3, training=TRAINING)), Plan)
    assert len(list((folder.parent / "xdg" / "diffexp" / "plans").iterdir())) == 1


def test_the_oldest_files_are_removed(tmp_path):
    for number in range(10):
        file = tmp_path / str(number)
        file.write_bytes(b"x" * 100)
        os.utime(file, (number, number))
    prune(tmp_path, 1000)
    assert len(list(tmp_path.iterdir())) == 10
    os.utime(tmp_path / "0", (99, 99))
    prune(tmp_path, 700)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "5", "6", "7", "8", "9"]


def test_a_full_folder_is_pruned_by_some_of_the_writes(folder, monkeypatch):
    looks = []
    monkeypatch.setattr(plan_cache, "prune", lambda *given: looks.append(given))
    monkeypatch.setattr(plan_cache, "WRITES_PER_PRUNING", 4)
    for steps in range(1, 41):
        cached_or_compiled(bind(ddim, steps=steps, training=TRAINING))
    assert len(list(folder.iterdir())) == 40
    assert 1 <= len(looks) <= 39 and set(looks) == {(folder, plan_cache.MOST_BYTES)}
