"""Workers as detached actors of a Ray cluster: one that runs, or one that starts and ends with the driver."""

import os
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffexp.errors import InputError
from diffexp.sweeps.engines.base import exit_reason
from diffexp.sweeps.engines.cluster import ClusterEngine
from diffexp.sweeps.engines.options import JOBS, Rule
from diffexp.sweeps.engines.ray_actor import RayWorker
from diffexp.sweeps.engines.ray_cluster import connect, death_reason


class RayEngine(ClusterEngine):
    """Starts actors, which outlive the driver where the cluster does; all nodes see the folder of the sweep.

    Args:
        workers: the number of actors.
        jobs: the same, where ``workers`` is None.
        address: of a cluster that runs, ``auto`` for the one of this machine; None: start one here.
        reserved: what Ray reserves for each: ``num_cpus``, ``num_gpus`` (None: one, if there are any), ``memory`` in
            bytes, ``resources``.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """

    OPTIONS = MappingProxyType(
        {"jobs": 2, "address": None, "num_cpus": 1, "num_gpus": None, "memory": None, "resources": None}
    )
    RULES = MappingProxyType(
        {
            "jobs": JOBS,
            "address": Rule(str),
            "num_cpus": Rule(float, at_least=0),
            "num_gpus": Rule(float, at_least=0),
            "memory": Rule(int, at_least=1),
            "resources": Rule(dict),
        }
    )

    def __init__(self, workers: int | None = None, jobs: int = 2, address: str | None = None, **reserved: Any) -> None:
        super().__init__(workers or jobs)
        self._ray: Any = connect(address)
        gpus = min(1, self._ray.cluster_resources().get("GPU", 0))
        given = {name: value for name, value in reserved.items() if value is not None}
        self._reserved = {"num_cpus": 1, "num_gpus": gpus, **given}
        self._hosts: dict[str, str] = {}
        self._questions: dict[str, Any] = {}
        self._count = 0

    def start(self, folder: Path, count: int) -> None:
        """Start so many actors; those that the cluster has no room for wait until it has.

        Raises:
            InputError: Ray cannot reserve that.
        """
        space = {"namespace": str(folder.absolute()), "lifetime": "detached", "scheduling_strategy": "SPREAD"}
        threads = int(self._reserved["num_cpus"]) or None
        try:
            # Without a runtime_env: Ray then starts Python through a shell, and a path with a space is cut there.
            actor = self._ray.remote(**space, **self._reserved)(RayWorker)
        except (ValueError, TypeError) as error:
            raise InputError(f"hydra/launcher=ray: {' '.join(str(error).split())}") from error
        for number in range(self._count + 1, self._count + count + 1):
            name = f"Ray worker {number}"
            here = (folder.absolute(), name, threads, Path.cwd(), dict(os.environ))
            self._jobs[name] = actor.options(name=name).remote(*here)
        self._count += count

    def adopt(self, folder: Path) -> set[str]:
        """Count the actors of an earlier driver that have not ended; returns their labels."""
        space = str(folder.absolute())
        for named in self._ray.util.list_named_actors(all_namespaces=True):
            if named["namespace"] == space:
                self._jobs[named["name"]] = self._ray.get_actor(named["name"], namespace=space)
                self._count = max(self._count, int(named["name"].rpartition(" ")[2]))
        return {*self._jobs}

    def _interrupt(self) -> None:
        for name, actor in self._jobs.items():
            if name in self._hosts:
                actor.interrupt.remote()
            else:
                self._ray.kill(actor)

    def _poll(self) -> None:
        """Ask every actor for its state; one that waits for room answers later."""
        from ray.exceptions import ActorUnavailableError, RayError

        for name, actor in [*self._jobs.items()]:
            question = self._questions.get(name) or actor.state.remote()
            self._questions[name] = question
            if not self._ray.wait([question], timeout=0)[0]:
                continue
            del self._questions[name]
            try:
                self._hosts[name], code = self._ray.get(question)
            except ActorUnavailableError:  # for a while, as Ray says
                continue
            except RayError as error:
                self._end(name, death_reason(error), self._hosts.get(name, ""))
                continue
            if code is not None:
                self._ray.kill(actor)
                self._end(name, exit_reason(code), self._hosts[name])
