"""What a user did wrong, in one line, and how every binary reports it."""

import sys
from collections.abc import Callable

from absl import app, flags, logging

from converters.errors import CheckpointError


class InputError(ValueError):
    """One line that names the file or flag, the place, what was expected and what was found."""


def run_main(main: Callable[[list[str]], int | None]) -> None:
    """Run a binary's main.

    A bad input ends in one line on standard error and exit code 1, a bad flag in exit code 2, an
    interrupt in 130; none of them shows a traceback. Anything else is a defect and shows one.
    """

    def guarded(argv: list[str]) -> int | None:
        logging.set_verbosity(logging.ERROR)  # libraries report every step of their own
        try:
            if len(argv) > 1:
                raise flags.Error(f"unexpected argument {argv[1]!r}")
            return main(argv)
        except flags.Error as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except (InputError, CheckpointError, OSError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    # app.run prints its own usage for bad flags and exits with 1; the contract asks for 2.
    try:
        app.run(guarded, flags_parser=_parse_flags)
    except flags.Error as error:
        sys.exit(f"error: {error}")


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage(argv)
    except SystemExit as stop:
        raise SystemExit(2 if stop.code == 1 else stop.code) from None
