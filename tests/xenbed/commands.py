"""What a person is to type for a command of the bed's, wherever one is printed."""

import os
import shlex
import sys
from pathlib import Path

from tests.xenbed.build import default_cache


def command_line(cache: Path, *words: str) -> str:
    """Return a command line for the Python that runs now, from the folder that we are in.

    It names the cache unless that is the usual one, and has sudo if that is how we became root.
    """
    python, here = Path(sys.executable), Path.cwd()
    if python.is_relative_to(here):
        python = python.relative_to(here)
    usual = cache == default_cache() and "EDGEWAKE_XENBED" not in os.environ
    named = () if usual else ("--cache", str(cache))
    sudo = ("sudo",) if os.geteuid() == 0 and "SUDO_USER" in os.environ else ()
    return shlex.join((*sudo, str(python), "-m", "tests.xenbed", *named, *words))
