"""Hosts on this machine: namespaces with an Ethernet between them, and daemons of one's own choice.

Each has its own processes, network, host name, /tmp and /dev/shm; killing its first process is a
power cut. One of them, `control`, is there before the others; it keeps this machine's /tmp.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from support.sweeps import Found, until

__all__ = ["PROGRAMS", "Hosts"]

PROGRAMS = ("unshare", "nsenter", "setpriv", "ip")

NETWORK = "10.77.0"

CONTROL = f"""\
set -eu
mount --make-rprivate /
mount --bind "$1/hosts" /etc/hosts
hostname control
ip link set lo up
ip link add bridge type bridge
ip addr add {NETWORK}.1/24 dev bridge
ip link set bridge up
touch "$1/bridge-is-up"
"""

HOST = """\
set -eu
name=$1 address=$2; shift 2
mount --make-rprivate /
mount -t tmpfs -o mode=1777 tmpfs /mnt
for folder in "$@"; do  # what all hosts see
  mkdir -p "/mnt/${folder#/tmp/}"
  mount --bind "$folder" "/mnt/${folder#/tmp/}"
done
mount --rbind /mnt /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
hostname "$name"
ip link set lo up
until ip link set "$name" name eth0 2>/dev/null; do sleep 0.1; done
ip addr add "$address/24" dev eth0
ip link set eth0 up
"""


class Hosts:
    """The hosts, and commands that run on them."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        shared: Sequence[Path],
        environment: Mapping[str, str],
    ) -> None:
        """Prepare them; none is started.

        Args:
            folder: one below /tmp that all see; what the daemons print is kept there.
            names: names of all but `control`, at most 12 letters long.
            shared: more folders below /tmp that all see.
            environment: variables of the daemons and of all commands.
        """
        self._folder, self._shared, self._environment = folder, (folder, *shared), environment
        self._addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, 11)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        lines = ["127.0.0.1 localhost", f"{NETWORK}.1 control"]
        lines += [f"{address} {name}" for name, address in self._addresses.items()]
        (folder / "hosts").write_text("\n".join(lines) + "\n")

    def start_control(self, daemons: str) -> None:
        """Start the first host with its daemons: shell, whose end is that of the host."""
        self._start("control", CONTROL + daemons, str(self._folder))
        self.until((self._folder / "bridge-is-up").exists)

    def start(self, name: str, daemons: str) -> None:
        """Start another one, also after its power was cut; it sees what `control` mounted."""
        shared = map(str, self._shared)
        within = self._inside("control", "--mount")
        self._start(name, HOST + daemons, name, self._addresses[name], *shared, within=within)
        first = str(self.until(lambda: self._first(name)))
        for step in (
            ["ip", "link", "add", f"to-{name}", "type", "veth", "peer", name, "netns", first],
            ["ip", "link", "set", f"to-{name}", "master", "bridge", "up"],
        ):
            subprocess.run([*self._inside("control", "--net"), *step], check=True)

    def run(
        self, name: str, *command: object, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host."""
        return subprocess.run(
            [*self._inside(name), *map(str, command)],
            env={**self._environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def kill(self, name: str) -> None:
        """Cut the power of a host."""
        process = self._processes.pop(name)
        process.kill()  # and with it the first process of the host, which ends the host
        process.wait()

    def runs(self, name: str) -> bool:
        """Whether a host was started, and its power was not cut since."""
        return name in self._processes

    def stop(self) -> None:
        """Cut the power of all."""
        for name in list(self._processes):
            self.kill(name)

    def processes(self, name: str) -> list[str]:
        """The command lines of what runs on a host."""
        return self.run(name, "ps", "-eo", "args=").stdout.splitlines()

    def files(self, name: str, folder: str) -> list[str]:
        """What lies in a folder, as a host sees it."""
        return self.run(name, "ls", "-A", folder).stdout.split()

    def log(self) -> str:
        """What the daemons have said."""
        return "".join(
            f"--- {file.name}\n{file.read_text(errors='replace')}"
            for file in sorted(self._folder.glob("*.log"))
        )

    def until(
        self, holds: Callable[[], Found], *, lives: Callable[[], bool] = lambda: True
    ) -> Found:
        """Wait for something that can only come while `lives`, and all hosts run."""

        def can_come() -> bool:
            return lives() and all(p.poll() is None for p in self._processes.values())

        try:
            return until(holds, lives=can_come)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.log()}") from error

    def _start(self, name: str, script: str, *arguments: str, within: Sequence[str] = ()) -> None:
        # It ends with this process, whatever ends that.
        command = [*within, "setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--net", "--uts"]
        command += ["--ipc", "--pid", "--mount-proc", "--fork", "--kill-child"]
        with (self._folder / f"{name}.start.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*command, "bash", "-c", script, name, *arguments],
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _first(self, name: str) -> int | None:
        """The first process of a host, as this machine numbers it; None before it is there."""
        parent = self._processes[name].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(children[0]) if children else None

    def _inside(self, name: str, *spaces: str) -> list[str]:
        every = ("--mount", "--net", "--uts", "--ipc", "--pid")
        return ["nsenter", f"--target={self._first(name)}", *(spaces or every)]
