"""How every program of `experiments` runs: as `converters.binary` says, with its own errors, and
with compiled programs kept between runs."""

import functools
from collections.abc import Callable
from typing import NoReturn

from converters import binary
from experiments import devices
from experiments.compile_cache import keep_compiled
from experiments.errors import InputError
from experiments.out_of_memory import end_of, is_out_of_memory


def run_main(main: binary.Main, define_flags: Callable[[], None]) -> NoReturn:
    """Run a program; see `converters.binary.run_main`. An `InputError` is a bad input; so are memory
    that does not suffice and devices that are not there, wherever they are met."""

    @functools.wraps(main)
    def prepared(argv: list[str]) -> int | None:
        keep_compiled()
        try:
            return main(argv)
        except InputError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise end_of(error) from None
            if line := devices.missing(error):
                raise InputError(line) from None
            raise

    binary.run_main(prepared, define_flags, bad_input=(InputError,))
