"""How every program of `experiments` runs: as `converters.binary` says, with its own errors, and
with compiled programs kept between runs."""

import functools
from collections.abc import Callable
from typing import NoReturn

from converters import binary
from experiments.compile_cache import keep_compiled
from experiments.errors import InputError


def run_main(main: binary.Main, define_flags: Callable[[], None]) -> NoReturn:
    """Run a program; see `converters.binary.run_main`. An `InputError` is a bad input."""

    @functools.wraps(main)
    def prepared(argv: list[str]) -> int | None:
        keep_compiled()
        return main(argv)

    binary.run_main(prepared, define_flags, bad_input=(InputError,))
