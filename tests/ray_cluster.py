"""A Ray cluster of two nodes on this host for tests, whose second node can be killed.

It belongs to a process of its own, because Ray replaces the handlers of signals where it starts nodes.
"""

import os
import socket
import subprocess
import sys
from typing import Any

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""How soon the cluster finds that a node is dead."""
SECONDS = 120


class RayCluster:
    """Runs until ``stop``; a command reaches it by ``address``."""

    def __init__(self) -> None:
        self.host = socket.gethostname()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._answer("address")

    def kill_node(self) -> None:
        """Kill the second node at once, as a power failure does."""
        assert self._process.stdin
        print("kill", file=self._process.stdin, flush=True)
        self._answer("killed")

    def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()

    def _answer(self, word: str) -> str:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(f"{word} "):
                return line.split()[1]
        raise AssertionError("the Ray cluster has ended")


def serve() -> None:
    """Start the nodes, and end them with the standard input."""
    from ray.cluster_utils import Cluster

    head = {**NODE, "include_dashboard": False, "_system_config": QUICK}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    print("address", cluster.address, flush=True)
    for _ in sys.stdin:
        cluster.remove_node(second, allow_graceful=False)
        print("killed second", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose modules are none that Ray means
    serve()
