"""How every program runs: its flags, --version, and how each of its endings looks to the user.

| ending | standard error | exit code |
| --- | --- | --- |
| main returns | | what it returns, 0 for None |
| --help, --version | | 0 |
| good, with a warning | `warning: ` and one line, each once | 0 |
| bad input, out of memory | `error: ` and one line | 1 |
| bad flag | `error: ` and one line | 2 |
| interrupt | `interrupted` | 130 |
| defect of ours | its traceback | 1 |
"""

import contextlib
import importlib.metadata
import inspect
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging

from converters.errors import CheckpointError, CheckpointWarning

Main = Callable[[list[str]], int | None]


def run_main(
    main: Main,
    define_flags: Callable[[], None],
    *,
    bad_input: tuple[type[Exception], ...] = (),
) -> NoReturn:
    """Define the flags, parse the command line, run `main` and exit.

    Nothing is defined before this call, so that importing a program's module leaves the flags of
    others alone.

    Args:
      main: the program; its module's docstring heads --help.
      define_flags: defines the program's flags.
      bad_input: exceptions beside `CheckpointError` and `OSError` that a user's mistake raises.
    """
    others = set(flags.FLAGS)
    define_flags()
    flags.DEFINE_flag(_VersionFlag())
    for name in sorted(set(flags.FLAGS) - others):
        # --help shows the flags of the module `__main__` only; in an installed script that is not
        # the module that defined them.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    sys.modules["__main__"].__doc__ = inspect.unwrap(main).__globals__["__doc__"]
    # absl's own parser prints three lines for a bad flag and exits with 1.
    app.run(guarded(main, bad_input=bad_input), flags_parser=_parse_flags)


def guarded(main: Main, *, bad_input: tuple[type[Exception], ...] = ()) -> Main:
    """`main` with its errors printed as the table above says; returns the exit code."""

    def run(argv: list[str]) -> int | None:
        # Orbax logs every step, and also the errors that it raises.
        logging.set_verbosity(logging.FATAL)
        with _warnings_as_lines():
            return ended(argv)

    def ended(argv: list[str]) -> int | None:
        try:
            if len(argv) > 1:
                raise flags.Error(f"unexpected argument {argv[1]!r}")
            return main(argv)
        except flags.Error as error:
            return _fail(error, 2)
        except (CheckpointError, OSError, *bad_input) as error:
            return _fail(error, 1)
        except MemoryError as error:
            return _fail(f"out of memory ({error or 'an allocation failed'})", 1)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return run


@contextlib.contextmanager
def _warnings_as_lines():
    """Warnings about a checkpoint as one line for the user; Python shows the others in its own way.

    Each line once: a config.json is read several times in a run, and Python forgets what it has shown
    whenever a library changes the filters.
    """
    usual, seen = warnings.showwarning, set()

    def show(message, category, *args, **kwargs):
        if not issubclass(category, CheckpointWarning):
            usual(message, category, *args, **kwargs)
        elif str(message) not in seen:
            seen.add(str(message))
            print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def version() -> str:
    """The version of the installed package, which setup.py states."""
    try:
        return importlib.metadata.version("eap-jax")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


class _VersionFlag(flags.BooleanFlag):
    """Prints the version and exits while flags are parsed: before required ones are missed."""

    def __init__(self):
        super().__init__("version", False, "Print the version of the package and exit.")

    def parse(self, arg) -> None:
        if self._parse(arg):
            print(f"eap-jax {version()}")
            raise SystemExit(0)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise SystemExit(_fail(error, 2)) from None
    except SystemExit:  # --help has printed itself; absl ends it with 1, as if it had failed.
        raise SystemExit(0) from None


def _fail(error: Exception | str, code: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code
