"""Run the project's binaries as real processes without paying for their imports each time.

One server process imports what the binaries import and forks a child for every run, before JAX has
started anything. A child has its own flags, exit code, output and device, and can be killed.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_SERVER = """
import gc, importlib, json, os, resource, runpy, sys, traceback
for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()  # children then share these objects' memory
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, name in ((0, os.devnull), (1, job["stdout"]), (2, job["stderr"])):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(name, flags, 0o600), number)
        if job["room"] is not None:
            pages = int(open("/proc/self/statm").read().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + job["room"]
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        sys.argv = [job["module"], *job["argv"]]
        code = 0
        try:
            runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        os._exit(code)  # taking all modules down takes a second
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """How a run ended: exit code (negative: the signal), lines of both outputs."""

    code: int
    stdout: list[str]
    stderr: list[str]

    @property
    def error(self) -> str:
        """The one line that a bad input ends in; anything more on standard error fails."""
        (line,) = [line for line in self.stderr if line.strip()]
        assert line.startswith("error: "), line
        return line


class Binaries:
    """The server.

    Args:
      folder: for the outputs of runs.
      imports: modules that the binaries import; never the binaries themselves.
    """

    def __init__(self, folder: Path, *imports: str):
        self._folder = folder
        # The compiler as users have it, see conftest.
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        environment |= {"PYTHONWARNINGS": "ignore"}
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *imports],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def run(self, module: str, *argv: object, kill_when=None, room: int | None = None) -> Done:
        """Run `python -m module argv`; `kill_when()` true kills it, as `kill -9` does; `room` is how
        many more bytes of address space it may have than at its start, as `ulimit -v` sets."""
        paths = {name: self._folder / name for name in ("stdout", "stderr")}
        job = {"module": module, "argv": list(map(str, argv)), "room": room}
        job |= {name: str(path) for name, path in paths.items()}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        child = int(self._server.stdout.readline())
        if kill_when is not None:
            while not kill_when():
                assert os.path.exists(f"/proc/{child}/exe"), paths["stderr"].read_text()
                time.sleep(0.002)
            os.kill(child, signal.SIGKILL)
        code = int(self._server.stdout.readline())
        stdout, stderr = (paths[name].read_text().splitlines() for name in ("stdout", "stderr"))
        return Done(code=code, stdout=stdout, stderr=stderr)


def server(folder: Path, *imports: str) -> Iterator[Binaries]:
    """For a module's fixture: the server, closed at the end."""
    found = Binaries(folder, *imports)
    yield found
    found.close()
