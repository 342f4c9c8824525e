"""Runs the blocks of one page as its reader would, in a folder of their own.

Commands stay as they are but for what a test must not touch: addresses become free ports of this machine, brokers
become the broker of the tests, and paths such as /var/lib lie in the folder. Servers are started, waited for, and
run on in the background until the page ends, a note says `stop`, or another server wants their address.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.docs.pages import ROOT, Block
from tests.processes import free_port, wait_for

TIMEOUT_S = 120
_ADDRESS = re.compile(r"(?<![\d.])((?:\d{1,3}\.){3}\d{1,3}|localhost|\[::1?\])?:(\d{4,5})\b(?!:)")
_KAFKA = re.compile(r"kafka://[\w.:,-]+/([\w-]+)")
_PATHS = re.compile(r"(?<![\w.}/:-])/(var/lib|var/log|etc|srv|mnt|run|opt)/")
_OF_MAKE = ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS")
_READY = {"tabor": "/-/ready", "prometheus": "/-/ready", "victoria-metrics": "/health"}
_SERVER = re.compile(
    r"(?:[A-Z][A-Z_]*=\S+ )*(?:exec )?"
    r"(?:(?P<tabor>tabor (?:run|ingest|storage-node|query)|make run)|(?P<other>prometheus|victoria-metrics))\b"
    r"(?!.*--help)"
)
_NO_HTTP = (1, 52, 56)
"""How curl ends if what answers speaks TLS."""
_LISTENS = re.compile(r"--?(?:listen|web\.listen-address|httpListenAddr)[ =]+\"?([^\s\"]+)")
_AS_IT_WAS = """set -a
[ ! -f .state ] || . ./.state
cd -- "${DOCS_CWD:-.}"
"""
_SCRIPT = f"""{_AS_IT_WAS}
trap 'DOCS_CWD=$PWD; export -p > FOLDER/.state' EXIT
set -eu -o pipefail
"""


class Failed(AssertionError):
    """A block did not do what it should."""


class Server:
    """A command of the docs that goes on until it is stopped."""

    def __init__(self, command: str, port: int, path: str, environment: dict[str, str], folder: Path) -> None:
        self.command = command
        self.port = port
        self._path = path
        self._output = folder / f".server-{port}.log"
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                ["bash", "-c", _AS_IT_WAS + command],
                stdout=output,
                stderr=output,
                env=environment,
                cwd=folder,
                process_group=0,
            )

    def output(self) -> str:
        return self._output.read_text(errors="replace")[-3000:]

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            if self._process.poll() is not None:
                raise Failed(f"ended with {self._process.returncode}")
            status, code = self._ask("http")
            if status in _NO_HTTP:
                _, code = self._ask("https")
            # 401 and 403: it asks who we are, so it is there.
            return code in ("200", "401", "403")

        wait_for(ready, f"{self.command} answers on port {self.port}", TIMEOUT_S)

    def _ask(self, scheme: str) -> tuple[int, str]:
        url = f"{scheme}://127.0.0.1:{self.port}{self._path}"
        ask = ["/usr/bin/curl", "-sk", "-m", "5", "-o", os.devnull, "-w", "%{http_code}", url]
        asked = subprocess.run(ask, capture_output=True, text=True)
        return asked.returncode, asked.stdout

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


class World:
    """What the reader of one page has: a folder, ports, servers that he has started, his variables.

    bootstrap: the address of a Kafka broker; asked for at the first command that wants one.
    """

    def __init__(self, folder: Path, bootstrap: Callable[[], str]) -> None:
        self._folder = folder
        self._obtain_bootstrap = bootstrap
        self._broker = ""
        self._ports: dict[str, int] = {}
        self._servers: list[Server] = []
        self._unique = secrets.token_hex(4)
        self._make_programs()
        for name in ("var/lib", "etc", "run"):
            (folder / name).mkdir(parents=True)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop all servers, the last first."""
        while self._servers:
            self._servers.pop().stop()

    def run(self, block: Block) -> None:
        """Run a block with what its notes say.

        Raises:
            Failed: with the place in the docs, the command, its output, and what to do about it.
        """
        try:
            if block.before:
                self._commands(block.before)
            if block.file:
                path = self._folder / self.substitute(block.file).lstrip("/")
                path = Path(self.substitute(block.file)) if block.file.startswith("/") else path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.substitute(block.text))
            elif block.language == "sh":
                self._must(block)
            elif block.language == "python":
                script = self._folder / "example.py"
                script.write_text(self.substitute(block.text))
                self._script(f"python {script}")
            said = self._output().read_text(errors="replace") if block.prints else ""
            if self.substitute(block.prints) not in said:
                raise Failed(f"did not print {block.prints!r}, but\n{said}")
        except AssertionError as error:
            raise Failed(
                f"{block.where}: {error}\n\nMend the block. If something has to be there before it, put "
                "<!-- before: COMMANDS --> above it; if the tests cannot run it, <!-- not run: REASON --> "
                f"(docs/testing.md, 'Commands in the docs'). To try: python -m tests.docs {block.page}"
            ) from None

    def _output(self) -> Path:
        """What the last script printed."""
        return self._folder / ".output"

    def _must(self, block: Block) -> None:
        if not block.fails:
            self._commands(block.text)
            return
        try:
            self._commands(block.text)
        except Failed:
            return
        raise Failed(f"succeeded, though it should fail: {block.fails}\n{block.text}")

    def substitute(self, text: str) -> str:
        """The text with addresses, brokers and paths of the tests."""
        text = _KAFKA.sub(self._kafka, text)
        text = _ADDRESS.sub(self._address, text)
        return _PATHS.sub(lambda path: f"{self._folder}{path[0]}", text)

    def _bootstrap(self) -> str:
        self._broker = self._broker or self._obtain_bootstrap()
        return self._broker

    def _kafka(self, found: re.Match[str]) -> str:
        if found[1].endswith(self._unique):
            return found[0]
        return f"kafka://{self._bootstrap()}/{found[1]}-{self._unique}"

    def _address(self, found: re.Match[str]) -> str:
        host, port = found[1] or "", found[2]
        if found[0] == self._broker or int(port) in self._ports.values():
            return found[0]
        if port == "9092":
            return self._bootstrap()
        return f"{'127.0.0.1' if host else ''}:{self._port(host, port)}"

    def _port(self, host: str, port: str) -> int:
        here = host in ("", "localhost", "127.0.0.1", "0.0.0.0", "[::1]", "[::]")
        return self._ports.setdefault(f"{'' if here else host}:{port}", free_port())

    def _commands(self, text: str) -> None:
        """Run commands: servers in the background, everything between two of them as one script."""
        script: list[str] = []
        for line in [*_logical_lines(text), "stop-here"]:
            server = _SERVER.match(line)
            if not server and line not in ("stop", "stop-here"):
                script.append(line)
                continue
            if "".join(script).strip():
                self._script("\n".join(script))
            script = []
            if line == "stop":
                self.stop()
            elif server:
                self._serve(line, "tabor" if server["tabor"] else server["other"])

    def _script(self, text: str) -> None:
        command = _SCRIPT.replace("FOLDER", str(self._folder)) + self.substitute(text)
        # Output goes to a file: a pipe would be held open by whatever the script leaves running.
        output = self._output()
        with output.open("wb") as out:
            done = subprocess.run(
                ["bash", "-c", command],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=self._folder,
                env=self._environment(),
                timeout=TIMEOUT_S,
            )
        if done.returncode:
            said = output.read_text(errors="replace")[-3000:]
            servers = "".join(f"\n--- {server.command}\n{server.output()}" for server in self._servers)
            raise Failed(f"ended with {done.returncode}:\n{self.substitute(text)}\n---\n{said}{servers}")

    def _serve(self, line: str, program: str) -> None:
        command = self.substitute(line)
        where = _LISTENS.search(command)
        port = int(where[1].rpartition(":")[2]) if where else self._port("", "9080")
        for other in [server for server in self._servers if server.port == port]:
            other.stop()
            self._servers.remove(other)
        # A server has little to do here, but would load all machine code, which is most of what a page takes.
        environment = {**self._environment(), "NUMBA_DISABLE_JIT": "1"}
        server = Server(command, port, _READY[program], environment, self._folder)
        self._servers.append(server)
        try:
            server.wait_until_ready()
        except AssertionError as error:
            raise Failed(f"{command}\n{error}\n---\n{server.output()}") from None

    def _environment(self) -> dict[str, str]:
        here = f"127.0.0.1:{self._port('', '9080')}"
        return {
            # What the tests were started with is not for a make in the docs.
            **{name: text for name, text in os.environ.items() if name not in _OF_MAKE},
            "PATH": f"{self._folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self._folder),
            # Kernels are not compiled anew for each page.
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
            # What commands take where the docs do not say an address.
            "TABOR_LISTEN": here,
            "TABOR_URL": f"http://{here}",
        }

    def _make_programs(self) -> None:
        """Programs that stand for the reader's: curl that fails when the answer is an error, make in the clone."""
        programs = {
            "curl": 'exec /usr/bin/curl --fail-with-body --silent --show-error "$@"',
            "make": f'TABOR_DATA_DIR={self._folder}/data exec /usr/bin/make --no-print-directory -C {ROOT} "$@"',
            "tabor": f'exec {sys.executable} -m tabor "$@"',
        }
        (self._folder / "bin").mkdir(parents=True)
        for name, text in programs.items():
            path = self._folder / "bin" / name
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)


def _logical_lines(text: str) -> Iterator[str]:
    """Lines, those that end with a backslash with what follows."""
    waiting = ""
    for line in text.splitlines():
        waiting += line
        if waiting.endswith("\\"):
            waiting = waiting[:-1]
            continue
        yield waiting.strip() if _SERVER.match(waiting.strip()) or waiting.strip() == "stop" else waiting
        waiting = ""
    if waiting:
        yield waiting
