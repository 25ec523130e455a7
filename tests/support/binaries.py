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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_SERVER = """
import gc, importlib, importlib.machinery, json, os, resource, runpy, signal, sys, traceback

class WithoutTorch(importlib.machinery.PathFinder):
    # No program needs torch, but transformers spends three seconds on it where it is installed.
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "torch" else super().find_spec(name, path, target)

sys.meta_path = [
    WithoutTorch if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path
]
sys.path.append(sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
gc.freeze()  # children then share these objects' memory

def run(job):
    signal.alarm(900)  # processes that wait for each other end too
    for number, name in ((0, os.devnull), (1, job["stdout"]), (2, job["stderr"])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(name, flags, 0o600), number)
    if job["room"] is not None:
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + job["room"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if job["blank_figures"]:
        from experiments.report import figure_style
        figure_style._saved = lambda figure, kind, dpi, metadata: b"<svg/>"
    if job["quick_compiler"]:
        import jax
        os.environ["XLA_FLAGS"] = job["xla_flags"]
        jax.config.update("jax_disable_most_optimizations", True)
    sys.argv = [job["module"], *job["argv"]]
    try:
        runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return stop.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

for line in sys.stdin:
    children = []
    for job in json.loads(line):
        children.append(os.fork())
        if children[-1] == 0:
            code = run(job)
            sys.stdout.flush()
            os._exit(code)  # taking all modules down takes a second
    print(json.dumps(children), flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes), flush=True)
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
            [sys.executable, "-c", _SERVER, str(Path(__file__).parent), *imports],
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

    def run(
        self,
        module: str,
        *argv: object,
        kill_when: Callable[[], bool] | None = None,
        room: int | None = None,
        blank_figures: bool = False,
        quick_compiler: bool = False,
    ) -> Done:
        """Run `python -m module argv`.

        Args:
          module: the program.
          *argv: its arguments.
          kill_when: once it returns true the run is killed, as `kill -9` does.
          room: how many more bytes of address space it may have than at its start, as `ulimit -v` sets.
          blank_figures: figures are drawn and their files written, with nothing in them; saving
            them is half of a small run's time.
          quick_compiler: with few optimisations, as in the tests' own process.
        """
        (done,) = self.run_together(
            module, [argv], kill_when=kill_when, room=room, blank_figures=blank_figures,
            quick_compiler=quick_compiler,
        )  # fmt: skip
        return done

    def run_together(
        self,
        module: str,
        commands: Sequence[Sequence[object]],
        *,
        kill_when: Callable[[], bool] | None = None,
        room: int | None = None,
        blank_figures: bool = False,
        quick_compiler: bool = False,
    ) -> list[Done]:
        """The same for several processes at once; `kill_when` kills the first."""
        settings = {
            "module": module, "room": room, "blank_figures": blank_figures,
            "quick_compiler": quick_compiler, "xla_flags": os.environ.get("XLA_FLAGS", ""),
        }  # fmt: skip
        jobs, outputs = [], []
        for number, argv in enumerate(commands):
            paths = {name: self._folder / f"{name}{number}" for name in ("stdout", "stderr")}
            job = settings | {"argv": list(map(str, argv))}
            jobs.append(job | {name: str(path) for name, path in paths.items()})
            outputs.append(paths)
        self._server.stdin.write(json.dumps(jobs) + "\n")
        self._server.stdin.flush()
        first, *_ = json.loads(self._server.stdout.readline())
        if kill_when is not None:
            while not kill_when():
                assert os.path.exists(f"/proc/{first}/exe"), outputs[0]["stderr"].read_text()
                time.sleep(0.002)
            os.kill(first, signal.SIGKILL)
        codes = json.loads(self._server.stdout.readline())
        return [
            Done(
                code=code,
                stdout=paths["stdout"].read_text().splitlines(),
                stderr=paths["stderr"].read_text().splitlines(),
            )
            for code, paths in zip(codes, outputs, strict=True)
        ]


def server(folder: Path, *imports: str) -> Iterator[Binaries]:
    """For a module's fixture: the server, closed at the end."""
    found = Binaries(folder, *imports)
    yield found
    found.close()
