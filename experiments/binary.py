"""How every binary runs: flags parsed, bad input reported in one line, programs kept between runs."""

import sys
from collections.abc import Callable

from absl import app, flags, logging

from converters.errors import CheckpointError
from experiments.compile_cache import keep_compiled
from experiments.errors import InputError


def run_main(main: Callable[[list[str]], int | None]) -> None:
    """Run a binary's main.

    A bad input ends in one line on standard error and exit code 1, a bad flag in exit code 2, an
    interrupt in 130; none of them shows a traceback. Anything else is a defect and shows one.
    """

    def guarded(argv: list[str]) -> int | None:
        keep_compiled()
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

    # absl's own parser prints three lines for a bad flag and exits with 1.
    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit:  # --help has printed itself; absl ends it with 1, as if it had failed.
        raise SystemExit(0) from None
