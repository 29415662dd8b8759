"""Images in PNGs and in shards: the same images, whichever files they are in, and each kind read by everything."""

import tarfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import diffexp
from diffexp.catalog.keys import BY_NAME
from diffexp.errors import InputError
from diffexp.experiment.finished import finished_run
from diffexp.experiment.sample_rows import SampleRows
from diffexp.experiment.stores import shards
from diffexp.experiment.stores.images import STORES, intact_images, stored_images
from diffexp.report.thumbnails import make_thumbnails
from diffexp.sweeps.results import read_cell
from tests.runs import PICTURES, files, images, metrics, network, points, raise_at, record, told

KINDS = [*STORES]
SHARDS = [kind for kind in KINDS if kind != "png"]
PIXELS = torch.randint(0, 256, (10, 3, 5, 4), generator=torch.Generator().manual_seed(0)).byte()


def spoil(path: Path, at: float) -> None:
    """Flip a bit, at this share of the file."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


def tear(path: Path, at: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(at * len(content))])


def same(folder: Path, expected: dict[int, torch.Tensor]) -> bool:
    found = images(folder)
    return list(found) == list(expected) and all(torch.equal(found[index], expected[index]) for index in found)


@pytest.fixture
def store(tmp_path: Path) -> Callable[[str], Any]:
    """A store whose images are samples 2, 4, 6, 3 in one batch, and 12 in another."""

    def make(kind: str):
        made = STORES[kind](tmp_path)
        made.write([2, 4, 6, 3], PIXELS[[2, 4, 6, 3]])
        made.write([12], PIXELS[:1])
        return made

    return make


def test_the_values_of_the_key():
    assert BY_NAME["samples"].choices == tuple(STORES)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read_back_in_any_order(store, kind, tmp_path):
    made = store(kind)
    found = stored_images(tmp_path)
    assert (len(found), [*found], 5 in found) == (5, [2, 3, 4, 6, 12], False)
    assert torch.equal(found.pixels([6, 2, 12]), PIXELS[[6, 2, 0]])
    assert torch.equal(found[3], PIXELS[3].float() / 255)
    assert {*made.shapes().values()} == {(3, 5, 4)}
    with pytest.raises(KeyError):
        found[5]
    assert {index for index in found if found.path(index)} == ({*found} if kind == "png" else set())


@pytest.mark.parametrize("kind", SHARDS)
def test_joined_shards_hold_their_range_whatever_the_batches_were(store, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SAMPLES", 5)
    made = store(kind)
    assert len(files(tmp_path)) == 2
    made.join()
    suffix = f".{kind}"
    assert files(tmp_path) == {f"000000{suffix}", f"000005{suffix}", f"000010{suffix}"}
    expected = {index: PIXELS[index % 12] for index in (2, 3, 4, 6, 12)}
    assert all(torch.equal(stored_images(tmp_path).pixels([index])[0], image) for index, image in expected.items())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    made.join()
    made.write([8, 5], PIXELS[[8, 5]])
    made.join()
    assert [*stored_images(tmp_path)] == [2, 3, 4, 5, 6, 8, 12]
    changed = {path.name for path in tmp_path.iterdir() if before[path] != path.read_bytes()}
    assert changed == {f"000005{suffix}"}, "shards without anything new stay as they are"


@pytest.mark.parametrize("kind", SHARDS)
def test_a_join_that_is_killed_loses_nothing(store, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SAMPLES", 4)
    made = store(kind)
    write, calls = type(made)._write, count()

    def dies(self, *rest):
        if next(calls):
            raise OSError(28, "No space left on device")
        write(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(type(made), "_write", dies)
        with pytest.raises(OSError, match="No space"):
            made.join()
    assert [*stored_images(tmp_path)] == [2, 3, 4, 6, 12]
    STORES[kind](tmp_path).join()
    assert files(tmp_path) == {f"{first:06d}.{kind}" for first in (0, 4, 12)}
    assert torch.equal(stored_images(tmp_path).pixels([2, 3, 4, 6, 12]), PIXELS[[2, 3, 4, 6, 0]])


def test_shards_of_large_images_have_fewer_of_them():
    assert shards.per_shard((1, 32, 32)) == 1000
    assert shards.per_shard((3, 512, 512)) == 85
    assert shards.per_shard((3, 9000, 9000)) == 1


@pytest.mark.parametrize("kind", SHARDS)
@pytest.mark.parametrize("at", [n / 16 for n in range(16)])
def test_no_damage_is_believed(store, kind, at, tmp_path):
    """A flipped bit or a tear anywhere costs samples, and never changes one."""
    for damage in (spoil, tear):
        store(kind)
        (file,) = (path for path in tmp_path.iterdir() if "000002" in path.name)
        damage(file, at)
        found = intact_images(tmp_path, None)
        assert {*found} <= {2, 3, 4, 6, 12} and 12 in found
        assert all(torch.equal(found.pixels([index])[0], PIXELS[index % 12]) for index in found)
        if damage is tear and (kind != "tar" or at < 0.35):  # a tar ends in zeros
            assert len(found) < 5
        rest = [index for index in (2, 3, 4, 6) if index not in found]
        if rest:
            STORES[kind](tmp_path).write(rest, PIXELS[rest])
        STORES[kind](tmp_path).join()
        found = intact_images(tmp_path, None)
        assert [*found] == [2, 3, 4, 6, 12]
        assert torch.equal(found.pixels([2, 3, 4, 6]), PIXELS[[2, 3, 4, 6]])
        for path in tmp_path.iterdir():
            path.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_sample_is_named_when_it_is_read(store, kind, tmp_path):
    store(kind)
    found = stored_images(tmp_path)
    for path in tmp_path.iterdir():
        tear(path, 0.2)
    with pytest.raises(InputError, match="sample 6 is damaged"):
        found[6]


# whole runs


@pytest.fixture(scope="module")
def reference(catalog, compose, tmp_path_factory):
    """The folder of a run with PNGs."""
    from diffexp.experiment.run import run_experiment

    return run_experiment(compose(*PICTURES), tmp_path_factory.mktemp("reference") / "png", catalog).folder


@pytest.mark.parametrize("kind", SHARDS)
def test_a_run_has_the_same_samples_in_one_file(run, reference, kind):
    folder = run(*PICTURES, samples=kind).folder
    assert {name for name in files(folder) if name.startswith("samples")} == {f"samples/000000.{kind}"}
    assert same(folder, images(reference))
    assert metrics(folder).keys() == metrics(reference).keys()
    assert finished_run(folder)
    shard = folder / "samples" / f"000000.{kind}"
    if kind == "tar":
        with tarfile.open(shard) as archive:
            names = archive.getnames()
            with Image.open(archive.extractfile("000003.png")) as image:  # pyright: ignore[reportArgumentType]
                assert (image.mode, image.size) == ("L", (8, 8))
        assert names == [f"{index:06d}.png" for index in range(7)]
    else:
        tensors = load_file(shard)
        assert tensors["indices"].tolist() == [*range(7)]
        assert torch.equal(tensors["images"].float() / 255, torch.stack([*images(reference).values()]))


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_a_run_resumes_one_of_any_kind(run, reference, monkeypatch, source, target):
    earlier = run(*PICTURES, samples=source, num_samples=4).folder
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    folder = run(*PICTURES, samples=target, resume=str(earlier)).folder
    assert sizes == [3] * 5
    assert same(folder, images(reference))
    assert {name.rpartition(".")[2] for name in files(folder) if name.startswith("samples")} == {target}


@pytest.mark.parametrize("kind", SHARDS)
def test_an_interrupted_run_goes_on(run, reference, monkeypatch, kind, tmp_path):
    with monkeypatch.context() as patch:
        network(patch, raise_at(8, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(*PICTURES, samples=kind)
    earlier = tmp_path / "0"
    assert (record(earlier)["drawn"], [*images(earlier)]) == (3, [0, 1, 2])
    assert {name for name in files(earlier) if name.startswith("samples")} == {f"samples/batch-000000.{kind}"}
    folder = run(*PICTURES, samples=kind, resume=str(earlier)).folder
    assert same(folder, images(reference))
    assert {name for name in files(folder) if name.startswith("samples")} == {f"samples/000000.{kind}"}


@pytest.mark.parametrize("kind", SHARDS)
def test_damaged_shards_are_drawn_again(run, reference, caplog, kind):
    whole = run(*PICTURES, samples=kind).folder
    tear(whole / "samples" / f"000000.{kind}", 0.5)
    assert finished_run(whole) is None
    folder = run(*PICTURES, samples=kind, resume=str(whole)).folder
    (warning,) = told(caplog)
    assert f"samples in {whole} are damaged and are drawn again" in warning
    assert same(folder, images(reference))


def test_equal_cells_are_copied_between_kinds(together, reference, monkeypatch):
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    cells = together(*((*PICTURES, f"samples={kind}") for kind in KINDS))
    assert sum(sizes) == 7 * 5, "drawn once"
    assert all(same(cell, images(cells[0])) for cell in cells)
    for cell, kind in zip(cells, KINDS):
        assert {name.rpartition(".")[2] for name in files(cell) if name.startswith("samples")} == {kind}
    assert finished_run(cells[1])
    together(*((*PICTURES, f"samples={kind}") for kind in KINDS), resumed=True)
    assert sum(sizes) == 7 * 5, "nothing is drawn a second time"


@pytest.mark.parametrize("kind", SHARDS)
def test_the_page_shows_images_out_of_shards(run, reference, kind):
    cells = [read_cell(folder) for folder in (reference, run(*PICTURES, samples=kind).folder)]
    thumbnails = make_thumbnails(cells)
    assert thumbnails.images[0] == thumbnails.images[1] and all(thumbnails.images[0])
    assert (thumbnails.has_files, thumbnails.side) == ((True, False), 8)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_for_trackers_have_the_images(store, kind, tmp_path):
    store(kind)
    rows = SampleRows([2, 4, 99], ["a", "b", "c"], 7, stored_images(tmp_path))
    assert [row.caption for row in rows[1:]] == ["b", "c"]
    assert (len(rows), rows[1].index, rows[1].path is None) == (3, 4, kind != "png")
    assert rows[1].load and torch.equal(diffexp.to_tensor([rows[1].load()])[0], PIXELS[4].float() / 255)
    assert (rows[2].path, rows[2].load) == (None, None)


def test_reading_samples_from_python(run, reference, tmp_path):
    found = diffexp.read_samples(reference)
    assert (len(found), [*found]) == (7, [*range(7)])
    assert found[3].shape == (1, 8, 8) and found[3].min() >= 0 and found[3].max() <= 1
    cloud = run("model=mixture", "steps=5", "num_samples=7", "batch_size=3", samples="tar").folder
    found = diffexp.read_samples(str(cloud))
    assert torch.equal(torch.stack([found[index] for index in range(7)]).double(), points(cloud))
    with pytest.raises(InputError, match="has no samples; give the folder of a run"):
        diffexp.read_samples(tmp_path)
