"""Where the processes of a cluster run: on the loopback interface, or each host in a network namespace of its own.

Namespaces are made in pairs of a fresh name, with a bridge in a namespace of its own, so that nothing of the
machine's own network is touched. They need root, Linux and iproute2.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.kafka_broker import free_ports


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the cluster: its address, and what a command line begins with to run there."""

    name: str
    address: str
    prefix: tuple[str, ...] = ()


class Network(Protocol):
    """Hosts and the faults between them."""

    def host(self, name: str) -> Host:
        """The host of that name, made if it is new."""

    def ports(self, count: int) -> list[int]:
        """Ports that are free on every host."""

    def close(self) -> None:
        """Remove all hosts."""


class Loopback:
    """All hosts are this machine. There are no faults of the network."""

    def host(self, name: str) -> Host:
        return Host(name, "127.0.0.1")

    def ports(self, count: int) -> list[int]:
        return free_ports(count)

    def close(self) -> None:
        pass


def why_no_namespaces() -> str | None:
    """What is missing for namespaces on this machine, or None."""
    if os.geteuid() != 0:
        return "root"
    for tool, package in (("ip", "iproute2"), ("iptables", "iptables"), ("tc", "iproute2")):
        if shutil.which(tool) is None:
            return f"{tool} (Debian: {package})"
    probe = f"tabor-{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        return "the right to make network namespaces"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


class Namespaces:
    """Each host has a namespace and an address on one bridge; the checker is a host too."""

    def __init__(self) -> None:
        self._tag = secrets.token_hex(2)
        self._switch = f"tb{self._tag}sw"
        self._hosts: dict[str, Host] = {}
        self._number: dict[str, int] = {}
        run("ip", "netns", "add", self._switch)
        self._in(self._switch, "ip", "link", "add", "br0", "type", "bridge")
        self._in(self._switch, "ip", "link", "set", "br0", "up")

    def host(self, name: str) -> Host:
        if name in self._hosts:
            return self._hosts[name]
        number = len(self._hosts) + 1
        space, address = f"tb{self._tag}{number}", f"10.77.0.{number}"
        inside, outside = f"v{self._tag}{number}i", f"v{self._tag}{number}o"
        run("ip", "netns", "add", space)
        self._in(self._switch, "ip", "link", "add", outside, "type", "veth", "peer", "name", inside)
        self._in(self._switch, "ip", "link", "set", inside, "netns", space)
        self._in(self._switch, "ip", "link", "set", outside, "master", "br0", "up")
        self._in(space, "ip", "link", "set", "lo", "up")
        self._in(space, "ip", "addr", "add", f"{address}/24", "dev", inside)
        self._in(space, "ip", "link", "set", inside, "up")
        self._hosts[name] = Host(name, address, ("ip", "netns", "exec", space))
        self._number[name] = number
        return self._hosts[name]

    def ports(self, count: int) -> list[int]:
        return list(range(9100, 9100 + count))

    def cut(self, name: str, others: Sequence[str]) -> None:
        """No packet passes between a host and these others any more."""
        for other in others:
            self._filter("-A", name, "-s", self._hosts[other].address, "-j", "DROP")

    def lose(self, name: str, share: float) -> None:
        """Of the packets that come to a host, lose a share by chance."""
        match = ("-m", "statistic", "--mode", "random", "--probability", str(share))
        self._filter("-A", name, *match, "-j", "DROP")

    def delay(self, name: str, milliseconds: int) -> None:
        """Hold back what leaves a host, in a queue that lets little through at a time."""
        number = self._number[name]
        device = f"v{self._tag}{number}i"
        self._in(
            f"tb{self._tag}{number}",
            *("tc", "qdisc", "add", "dev", device, "root", "tbf"),
            *("rate", "2mbit", "burst", "32kbit", "latency", f"{milliseconds}ms"),
        )

    def heal(self, name: str) -> None:
        """Undo all faults of a host."""
        number = self._number[name]
        space, device = f"tb{self._tag}{number}", f"v{self._tag}{number}i"
        self._in(space, "iptables", "-F", "INPUT")
        with contextlib.suppress(subprocess.CalledProcessError):
            self._in(space, "tc", "qdisc", "del", "dev", device, "root")

    def close(self) -> None:
        for number in self._number.values():
            run("ip", "netns", "del", f"tb{self._tag}{number}")
        run("ip", "netns", "del", self._switch)

    def _filter(self, how: str, name: str, *rule: str) -> None:
        self._in(f"tb{self._tag}{self._number[name]}", "iptables", how, "INPUT", *rule)

    def _in(self, space: str, *command: str) -> None:
        run("ip", "netns", "exec", space, *command)


def run(*command: str) -> None:
    """Run a command; its output is in the error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
