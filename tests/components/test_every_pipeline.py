"""Every family of pipelines from inside: our loop draws what the pipeline draws, and any other solver runs."""

import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffexp.catalog.discover import Catalog
from diffexp.errors import InputError
from tests.families import DISTINCT, FAMILIES
from tests.families.runs import Bench
from tests.pipeline_runs import psnr

ELSEWHERE = {"kandinsky22", "kandinsky22_prior", "kandinsky22_decoder"}
"""Kandinsky's own scheduler reads a variance that its network learned."""
DRAWN = [name for name in DISTINCT if name not in ELSEWHERE]


@pytest.fixture(scope="module")
def bench(
    catalog: Catalog,
    compose: Callable[..., dict[str, Any]],
    tiny: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Bench]:
    config = compose("model=pipeline", "model.id=unset", "dtype=float32", "snapshot_every=0")
    return lambda name: Bench(FAMILIES[name], tiny(name), config, catalog, tmp_path_factory.mktemp(name))


def is_freed(model: weakref.ref[Any], seconds: float = 20.0) -> bool:
    """Whether nothing keeps a model, once the threads of its calls have ended."""
    until = time.monotonic() + seconds
    while model() is not None and time.monotonic() < until:
        gc.collect()
        time.sleep(0.05)
    return model() is None


@pytest.mark.parametrize("name", DRAWN)
def test_a_family(bench: Callable[[str], Bench], name: str) -> None:
    own = bench(name)
    result = own.draw(snapshot_every=1)
    assert (result.folder / "trajectory.png").is_file()
    assert psnr(result.samples[0], own.by_pipeline()) > 60
    assert result.media.keys() == ({0} if FAMILIES[name].output != "images" else set())
    for scheduler in ("euler", "heun"):
        other = own.draw(scheduler)
        assert other.samples[0].isfinite().all() and other.samples[0].shape == result.samples[0].shape
        assert other.metrics["nfe"] >= result.metrics["nfe"] - 1  # PNDM repeats one
    kept = weakref.ref(own.model)  # pyright: ignore[reportArgumentType]
    del own
    assert is_freed(kept)


def test_what_is_missing_is_one_line(bench: Callable[[str], Bench]) -> None:
    own = bench("sdxl_refiner")
    with pytest.raises(InputError, match=r"; it may need pipe.image=..., or loop=pipeline loop.image=...$"):
        own.draw(loop={"name": "denoise"})
    with pytest.raises(InputError, match=r"pipe.strength is not free: write loop=pipeline loop.strength="):
        own.draw(pipe={"strength": 0.5})
