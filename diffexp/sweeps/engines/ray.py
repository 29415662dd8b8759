"""Workers as detached actors of a Ray cluster: one that runs, or one that starts and ends with the driver."""

import os
import time
from pathlib import Path
from typing import Any

from diffexp.errors import InputError
from diffexp.sweeps.engines.base import Ended, exit_reason, on_host
from diffexp.sweeps.engines.ray_actor import RayWorker, death_reason

OPTIONS: dict[str, Any] = {"address": None, "num_cpus": 1, "num_gpus": None, "memory": None, "resources": None}
"""Ray's address (None: start a cluster here) and what Ray reserves for a worker; num_gpus: 1 if there are any."""
STOP_SECONDS = 120.0


class RayEngine:
    """Starts actors, which outlive the driver where the cluster does; all nodes see the folder of the sweep.

    Args:
        options: see ``OPTIONS``.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, **options: Any) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError("hydra/launcher=ray needs Ray: pip install 'diffexp[ray]'") from error
        self._ray = ray
        self._reserved = {name: value for name, value in (OPTIONS | options).items() if value is not None}
        address = self._reserved.pop("address", "local")
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"hydra.launcher.address={address}: {' '.join(str(error).split())}") from error
        if "GPU" in ray.cluster_resources():
            self._reserved.setdefault("num_gpus", 1)
        self._actors: dict[str, Any] = {}
        self._hosts: dict[str, str] = {}
        self._questions: dict[str, Any] = {}
        self._ended: list[Ended] = []
        self._count = 0

    def start(self, folder: Path, count: int) -> None:
        """Start so many actors; those that the cluster has no room for wait until it has."""
        path = {"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}}
        space = {"namespace": str(folder.absolute()), "lifetime": "detached", "scheduling_strategy": "SPREAD"}
        actor = self._ray.remote(**space, **self._reserved, runtime_env=path)(RayWorker)
        threads = int(self._reserved.get("num_cpus", 0)) or None
        for number in range(self._count + 1, self._count + count + 1):
            name = f"Ray worker {number}"
            here = (folder.absolute(), name, threads, Path.cwd(), dict(os.environ))
            self._actors[name] = actor.options(name=name).remote(*here)
        self._count += count

    def adopt(self, folder: Path) -> None:
        """Count the actors of an earlier driver that have not ended."""
        space = str(folder.absolute())
        for named in self._ray.util.list_named_actors(all_namespaces=True):
            if named["namespace"] == space:
                self._actors[named["name"]] = self._ray.get_actor(named["name"], namespace=space)
                self._count = max(self._count, int(named["name"].rpartition(" ")[2]))

    def running(self) -> int:
        """The number of actors whose workers have not ended."""
        self._poll()
        return len(self._actors)

    def ended(self) -> list[Ended]:
        """The workers that have ended since the last call."""
        self._poll()
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """End the actors that have not begun, interrupt the other workers and wait until they have ended."""
        deadline = time.monotonic() + STOP_SECONDS
        self._poll()
        for name, actor in self._actors.items():
            if name in self._hosts:
                actor.interrupt.remote()
            else:
                self._ray.kill(actor)
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.2)

    def _poll(self) -> None:
        """Ask every actor for its state; one that waits for room answers later."""
        from ray.exceptions import ActorUnavailableError, RayError

        for name, actor in [*self._actors.items()]:
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
                self._end(name, death_reason(error))
                continue
            if code is not None:
                self._ray.kill(actor)
                self._end(name, exit_reason(code))

    def _end(self, name: str, reason: str | None) -> None:
        del self._actors[name]
        self._ended.append(Ended(name, on_host(reason, self._hosts.pop(name, ""))))
