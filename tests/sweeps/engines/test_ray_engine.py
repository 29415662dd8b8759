"""What Ray says, in one line each."""

import pytest

from diffexp.errors import InputError
from diffexp.sweeps.engines.ray import RayEngine
from diffexp.sweeps.engines.ray_cluster import death_reason
from tests.slurm_cluster import free_ports


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("The actor died.\n\tip: 10.0.0.2\nThe actor died because its node has died. Node Id: 4bbf", "node failure"),
        ("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR", "(out of memory?)"),
        (
            "The actor died because of an error raised in its creation task,\nNo such file",
            "creation task, No such file",
        ),
    ],
)
def test_the_death_of_an_actor_is_one_line(told: str, expected: str):
    reason = death_reason(RuntimeError(told))
    assert reason.endswith(expected) and "\n" not in reason


def test_an_address_without_a_cluster_is_refused_at_once():
    pytest.importorskip("ray")
    (port,) = free_ports(1)
    with pytest.raises(InputError) as raised:
        RayEngine(address=f"127.0.0.1:{port}")
    assert str(raised.value).startswith(f"hydra.launcher.address=127.0.0.1:{port}: ")
    assert str(raised.value).endswith("; start one with ray start --head, or leave the address out and one starts here")
