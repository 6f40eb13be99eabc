"""Two nodes and a controller of Slurm on this machine, for scripts that are given to sbatch.

A node is a set of namespaces with an address, processes, a /tmp/ray and shared memory of its own, so a program finds in
it what it finds on a machine. `srun` and `scontrol` are stand-ins that ask the controller in this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

NAMES = ("node0", "node1")
NETWORK = "10.77.0."
"""Only the nodes are in it: two ends of a virtual cable."""

INIT = """
hostname "$1" && mount --bind "$2" /etc/hosts && ip link set lo up || exit 1
for folder in /tmp/ray /dev/shm; do mkdir -p "$folder" && mount -t tmpfs none "$folder" || exit 1; done
touch "$3"
while :; do sleep 3600 & wait; done  # adopts what dies orphaned, as an init does
"""

STAND_IN = """#!{python} -ISs
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({address!r})
    what = {{"tool": os.path.basename(sys.argv[0]), "words": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}}
    asked.sendall(json.dumps(what).encode() + b"\\n")
    answer = json.loads(asked.makefile().readline())
sys.stdout.write(answer["printed"])
sys.exit(answer["code"])
"""


def why_not() -> str:
    """Return why no such nodes can be made here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces with addresses of their own need root on Linux"
    missing = [tool for tool in ("unshare", "nsenter", "setpriv", "ip", "mount") if shutil.which(tool) is None]
    if missing:
        return f"{missing[0]} is not installed"
    tried = subprocess.run(["unshare", "--pid", "--net", "--mount", "--fork", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "this system allows no namespaces"


class Node:
    """A node that is up until `kill`, which no process on it survives."""

    def __init__(self, name: str, folder: Path) -> None:
        ready = folder / f"{name}.ready"
        ready.unlink(missing_ok=True)
        apart = ["--pid", "--net", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        init = ["bash", "-c", INIT, "init", name, str(folder / "hosts"), str(ready)]
        self._unshare = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", *apart, *init])
        deadline = time.monotonic() + 10
        while not ready.exists():
            assert self._unshare.poll() is None, f"{name} does not start"
            assert time.monotonic() < deadline, f"{name} does not start"
            time.sleep(0.02)
        self.pid = psutil.Process(self._unshare.pid).children()[0].pid

    def popen(self, words: list[str], cwd: str, env: dict[str, str], log: Any) -> subprocess.Popen[bytes]:
        """Start a command on this node; what is returned is its parent outside."""
        inside = ["bash", "-c", 'cd "$0" && exec "$@"', cwd, *words]
        enter = ["nsenter", "--target", str(self.pid), "--pid", "--net", "--mount", "--uts", "--ipc", "--", *inside]
        return subprocess.Popen(enter, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        """End the node, without notice to anything on it."""
        self._unshare.kill()
        self._unshare.wait()


@dataclass
class Job:
    """What became of one start of a job.

    Args:
        code: of the batch script.
        is_requeued: whether the script asked for it.
    """

    code: int | None = None
    is_requeued: bool = False


@dataclass
class Controller:
    """Plays slurmctld for one job at a time, on two nodes.

    Args:
        folder: an empty folder, shared by the nodes.
        cpus: of a node.
    """

    folder: Path
    cpus: int = 1
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = (self.folder / "job.log").open("ab")
        self._job = Job()
        self._n_starts = 0
        addresses = {name: f"{NETWORK}{number}" for number, name in enumerate(NAMES, 1)}
        hosts = "".join(f"{address} {name}\n" for name, address in addresses.items())
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        tools, place = self.folder / "bin", str(self.folder / "controller")
        tools.mkdir()
        for tool in ("srun", "scontrol"):
            (tools / tool).write_text(STAND_IN.format(python=sys.executable, address=place))
            (tools / tool).chmod(0o755)
        controller = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                answer = controller._answer(**json.loads(self.rfile.readline()))
                with contextlib.suppress(BrokenPipeError):  # who asked was killed with its node
                    self.wfile.write(json.dumps(answer).encode() + b"\n")

        self._server = socketserver.ThreadingUnixStreamServer(place, Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def start(self, script: Path, words: list[str], env: dict[str, str]) -> None:
        """Boot the nodes and start a batch script on the first, as slurmd does."""
        self.nodes = [Node(name, self.folder) for name in NAMES]
        ends = [word for node in self.nodes for word in ("eth0", "netns", str(node.pid))]
        subprocess.run(["ip", "link", "add", *ends[:3], "type", "veth", "peer", "name", *ends[3:]], check=True)
        for number, node in enumerate(self.nodes, 1):
            add = f"ip address add {NETWORK}{number}/24 dev eth0 && ip link set eth0 up"
            subprocess.run(["nsenter", "--target", str(node.pid), "--net", "sh", "-c", add], check=True)
        self._job = Job()
        slurm = {
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[0-1]",
            "SLURM_JOB_NUM_NODES": str(len(NAMES)),
            "SLURM_CPUS_PER_TASK": str(self.cpus),
            "SLURM_RESTART_COUNT": str(self._n_starts),
        }
        self._n_starts += 1
        path = f"{self.folder / 'bin'}{os.pathsep}{env['PATH']}"
        self._batch = self.nodes[0].popen(
            ["bash", str(script), *words], str(self.folder), env | slurm | {"PATH": path}, self.log
        )

    def signal_batch_shell(self, number: int) -> None:
        """Send a signal to the batch shell alone, as `--signal=B:…` asks."""
        psutil.Process(self._batch.pid).children()[0].send_signal(number)

    def wait(self, seconds: float) -> Job:
        """Return what became of the job once its script has ended, and end the nodes."""
        self._job.code = self._batch.wait(timeout=seconds)
        self.kill()
        return self._job

    def kill(self) -> None:
        """End all processes of the job, as SIGKILL at the end of the grace time, or a power cut."""
        for node in self.nodes:
            node.kill()
        self._batch.wait()
        self.nodes = []

    def close(self) -> None:
        """End the nodes and stop answering."""
        for node in self.nodes:
            node.kill()
        self._server.shutdown()
        self._server.server_close()
        self.log.close()

    def is_running(self) -> bool:
        """Return whether the batch script runs."""
        return self._batch.poll() is None

    def _answer(self, tool: str, words: list[str], env: dict[str, str], cwd: str) -> dict[str, object]:
        if tool == "srun":
            first = next(number for number, word in enumerate(words) if not word.startswith("--"))
            assert f"--cpus-per-task={self.cpus}" in words[:first], "srun does not inherit it from sbatch"
            tasks = [node.popen(words[first:], cwd, env, self.log) for node in self.nodes]
            return {"code": max(task.wait() for task in tasks), "printed": ""}
        if words == ["show", "hostnames", env["SLURM_JOB_NODELIST"]]:
            return {"code": 0, "printed": "\n".join(NAMES) + "\n"}
        if words == ["requeue", env["SLURM_JOB_ID"]]:
            self._job.is_requeued = True
            return {"code": 0, "printed": ""}
        return {"code": 1, "printed": f"unknown: {tool} {words}\n"}
