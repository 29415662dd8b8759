"""A SLURM of two nodes on this host for tests: its own munge, its own ports, all files in a temporary folder.

It has no accounting, as the smallest of real clusters have none: ``sacct`` fails there.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

PROGRAMS = "munged slurmctld slurmd sbatch srun squeue scancel scontrol sinfo".split()
FOLDERS = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
MISSING = [name for name in PROGRAMS if not shutil.which(name, path=FOLDERS)]
"""Programs of Debian's packages slurm-wlm and munge that are not installed."""
SECONDS = 60
"""How long the cluster may take for anything, before the test fails."""
CONFIG = """
ClusterName=diffexp
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
KillWait={kill_wait}
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmctldPort={controller}
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=8000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=8000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmCluster:
    """The daemons run until ``stop``; ``environment`` is what a command needs to reach them.

    Args:
        kill_wait: seconds between the SIGTERM and the SIGKILL of a job that is cancelled.
    """

    def __init__(self, kill_wait: int = 30) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))},
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": FOLDERS,
        }
        self._daemons: list[subprocess.Popen[bytes]] = []
        (self.folder / "state").mkdir()
        controller, first, second = free_ports(3)
        user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
        values = {"host": socket.gethostname().partition(".")[0], "user": user, "folder": self.folder}
        ports = {"controller": controller, "first": first, "second": second}
        (self.folder / "slurm.conf").write_text(CONFIG.format(**values, **ports, kill_wait=kill_wait))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        try:
            files = {"key-file": key, "socket": self.folder / "munge.socket"}
            files |= {f"{name}-file": self.folder / f"munge.{name}" for name in ("pid", "log", "seed")}
            self._start("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
            wait_for((self.folder / "munge.socket").exists, "munged has no socket")
            self._start("slurmctld", "-D", "-c")
            for node in ("n1", "n2"):
                self._start("slurmd", "-D", "-N", node)
            wait_for(self._is_idle, "the nodes of SLURM are not idle")
        except BaseException:
            self.stop()
            raise

    def run(self, *command: str) -> str:
        """The output of a command of SLURM."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{self.logs()}"
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """The state of every job that has not ended, by its number."""
        return dict(line.split() for line in self.run("squeue", "--array", "-h", "-o", "%i %T").splitlines())

    def logs(self) -> str:
        """The last lines of every daemon."""
        found = sorted(self.folder.glob("*.log"))
        return "".join(f"\n{path.name}: " + "\n".join(path.read_text().splitlines()[-8:]) for path in found)

    def stop(self) -> None:
        """Cancel every job, end the daemons and remove their files."""
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            for daemon in self._daemons:  # the last that was started ends first
                stack.callback(end, daemon)
            if len(self._daemons) == 4 and self.jobs():
                self.run("scancel", "--signal=KILL", "--full", *self.jobs())
                self.run("scancel", *self.jobs())
                wait_for(lambda: not self.jobs(), "jobs of SLURM have not ended")

    def _start(self, *command: str) -> None:
        output = (self.folder / f"{command[0]}.out").open("ab")
        with closing(output):
            daemon = subprocess.Popen(command, env=self.environment, stdout=output, stderr=subprocess.STDOUT)
        self._daemons.append(daemon)

    def _is_idle(self) -> bool:
        for daemon in self._daemons:
            assert daemon.poll() is None, f"{daemon.args} has ended{self.logs()}"
        states = subprocess.run(["sinfo", "-h", "-N", "-o", "%t"], env=self.environment, capture_output=True, text=True)
        return states.stdout.split() == ["idle", "idle"]


def wait_for(reached: Callable[[], bool], otherwise: str, seconds: float = SECONDS) -> None:
    """Wait until something is so; the test fails if it takes longer than ``seconds``."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of this host that nothing listens on."""
    with ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in listening]
