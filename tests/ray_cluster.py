"""A Ray cluster of two nodes on this host for tests, whose second node can be killed."""

import os
import socket
from typing import Any

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""How soon the cluster finds that a node is dead."""


class RayCluster:
    """Runs until ``stop``; a command reaches it by ``address``."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster

        head = {**NODE, "include_dashboard": False, "_system_config": QUICK}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._second: Any = self._cluster.add_node(**NODE)
        self._cluster.wait_for_nodes()
        self.address: str = self._cluster.address
        self.host = socket.gethostname()

    def kill_node(self) -> None:
        """Kill the second node at once, as a power failure does."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def stop(self) -> None:
        self._cluster.shutdown()
