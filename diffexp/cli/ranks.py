"""The ranks of ``torchrun``: processes that run the same command; the first decides the folder, the others work in it.

Only the variables that ``torchrun`` sets are needed (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), and of
``torch.distributed`` only its key-value store: ranks share no tensors, so that there is no process group.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

from diffexp.cli.words import folder_word
from diffexp.errors import InputError
from diffexp.sweeps.record import NAME as SWEEP
from diffexp.sweeps.work import NAME as WORK

if TYPE_CHECKING:
    from torch.distributed import TCPStore

KEY = "diffexp/folder"
PATIENCE = timedelta(minutes=10)
"""How long ranks wait for the folder, which the first one decides before it loads anything."""

POLL_SECONDS = 0.2
SWEEP_WORDS = ("hydra/launcher=local", "workers=1")
"""The words of a sweep by ranks: the first one drives it and starts a worker, the others join."""
_turns = count()
"""Numbers the runs that this process takes part in: a script may have several."""


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks of one command."""

    rank: int
    local_rank: int
    """Among those of the same machine."""

    @classmethod
    def of_environment(cls) -> Self | None:
        """The ranks that this process is one of; None where it is alone.

        Raises:
            InputError: a variable is missing or no number.
        """
        if not {"RANK", "WORLD_SIZE"} <= os.environ.keys() or _number("WORLD_SIZE") < 2:
            return None
        return cls(_number("RANK"), _number("LOCAL_RANK" if "LOCAL_RANK" in os.environ else "RANK"))

    @property
    def job(self) -> str:
        """The name of this process in records and messages."""
        return f"rank {self.rank}"

    def words_of_sweep(self, words: Sequence[str]) -> list[str]:
        """The words of a sweep with those that let the ranks be its workers."""
        given = {word.lstrip("+").partition("=")[0] for word in words}
        return [*words, *(word for word in SWEEP_WORDS if word.partition("=")[0] not in given)]

    def announce(self, folder: Path) -> None:
        """Tell the other ranks the folder to work in."""
        _store(self.rank).set(f"{KEY}/{_restarts()}/{next(_turns)}", str(folder))

    def folder(self) -> Path:
        """The folder that the first rank announces.

        Raises:
            InputError: it announced none.
        """
        from torch.distributed import DistError

        try:
            return Path(_store(self.rank).get(f"{KEY}/{_restarts()}/{next(_turns)}").decode())
        except DistError as error:
            raise InputError(f"rank {self.rank} did not receive the folder of the run: rank 0 has ended") from error

    def words(self, words: Sequence[str]) -> list[str]:
        """The words of the command, or those that continue it where ``torchrun`` has started all ranks again."""
        for restart in reversed(range(_restarts())):
            key = f"{KEY}/{restart}/0"
            if _store(self.rank).check([key]):
                folder = Path(_store(self.rank).get(key).decode())
                if any((folder / name).exists() for name in (SWEEP, "run.json")):
                    return [folder_word("resume", folder)]
        return list(words)

    def work(self) -> Path:
        """Be a worker in the folder that the first rank announces, until nothing is left to do; returns the folder.

        Raises:
            InputError: it announced none, or has ended.
            KeyboardInterrupt: as ``run_worker`` does.
        """
        from diffexp.experiment.lock import Watch
        from diffexp.sweeps.worker import run_worker

        folder, watch = self.folder(), Watch()
        while not (folder / WORK).exists() and watch.is_held(folder):  # a sweep composes its cells first
            time.sleep(POLL_SECONDS)
        run_worker(folder, self.job)
        return folder

    def choose_device(self) -> None:
        """Let this process see one GPU alone, if there are any."""
        from torch.cuda import device_count  # before CUDA is initialised, when the variable has still an effect

        if count := device_count():
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            devices = visible if len(visible) == count and all(visible) else [str(n) for n in range(count)]
            os.environ["CUDA_VISIBLE_DEVICES"] = devices[self.local_rank % count]


def _restarts() -> int:
    """How often ``torchrun`` has started the ranks again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)


@cache
def _store(rank: int) -> "TCPStore":
    """The store of all ranks, which the first serves until its process ends."""
    from torch.distributed import TCPStore

    # torchrun keeps a store at this address itself, which also survives a restart of the ranks.
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port = os.environ.get("MASTER_ADDR", ""), _number("MASTER_PORT")
    return TCPStore(address, port, None, serves, PATIENCE, wait_for_workers=False)


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise InputError(f"{name}={text} is not a number: start the ranks with torchrun")
    return int(text)
