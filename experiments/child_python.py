"""Python processes of our own that import this program, whatever folder they start in.

`python -m` and `python -c` look in the folder at hand first, and a user's folder may well hold an
`experiments` of its own. `-P` leaves that folder out; PYTHONPATH names the place of this program.
"""

import os
import sys
from pathlib import Path

_PACKAGES = Path(__file__).resolve().parents[1]


def command(*words: str) -> list[str]:
    """A Python with these arguments, to be started with `environment()`."""
    return [sys.executable, "-P", *words]


def environment() -> dict[str, str]:
    """This process's environment, in which a `command` finds the packages of this program first."""
    paths = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
