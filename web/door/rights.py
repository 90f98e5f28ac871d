"""What the door may do beside serving: as little as can be.

The daemon is root as a rule, and the door talks to strangers. Its socket is there and its key is
read, so of root's rights it needs none: what else it reads and writes is its own user's as a rule.
Only if the state directory, or the folder edgewake is installed in, is another user's and closed to
us does it keep the right to open files all the same.
"""

import logging
import os
import socket
import tempfile

import flask

from orchestrator.linux import capabilities
from web.door.settings import DoorSettings

PATIENCE_S = 1.0  # for the daemon, which listens already
PROGRAM = (__file__, os.__file__, str(flask.__file__))  # of each place that files are read from

log = logging.getLogger(__name__)


def give_up(settings: DoorSettings) -> None:
    """Give up all rights that are not needed; for the beginning, before there are threads."""
    spare = capabilities.DAC_OVERRIDE
    try:
        capabilities.gain_none()
        capabilities.bound_none()
        capabilities.keep(effective=0, permitted=spare)
        foreign = _foreign(settings)
        kept = spare if foreign else 0
        capabilities.keep(effective=kept, permitted=kept)
    except OSError as error:
        log.warning("the door keeps rights that it does not need: %s", error)
        return
    if foreign:
        log.info("the door may open files of all users, for some that it needs are another user's")


def _foreign(settings: DoorSettings) -> bool:
    """Say whether files that we need cannot be used as things are."""
    try:
        for file in PROGRAM:
            os.close(os.open(file, os.O_RDONLY))
        for path in (settings.tokens, settings.tokens.with_suffix(".lock")):
            if path.exists():
                os.close(os.open(path, os.O_RDWR))
        with tempfile.TemporaryFile(dir=settings.tokens.parent):
            pass
        if settings.socket.exists():
            with socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(PATIENCE_S)
                caller.connect(str(settings.socket))
    except PermissionError:
        return True
    except OSError:  # a daemon that is busy, a disk that is full: no matter of rights
        return False
    return False
