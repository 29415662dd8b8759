"""Whether a run is finished, with every file of it whole."""

from pathlib import Path

from diffexp.experiment.recorded import whole_images
from diffexp.experiment.resume import REQUIRED, Earlier, read_earlier
from diffexp.experiment.rounds import samples_of
from diffexp.experiment.sample_files import SampleFiles
from diffexp.files import read_json_or_none


def finished_run(folder: Path) -> Earlier | None:
    """The run in a folder if it is done and whole: its record, its metrics and every one of its samples."""
    earlier = read_earlier(folder)
    if earlier is None or earlier.record.get("status") != "done" or not earlier.record.keys() >= REQUIRED:
        return None
    if read_json_or_none(folder / "metrics.json") is None:
        return None
    files = SampleFiles(folder)
    found = {*whole_images(files, earlier.record), *files.finished_points()[0]}
    wanted = samples_of(earlier.record)
    return earlier if wanted and found >= {*range(wanted)} else None
