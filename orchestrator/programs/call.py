"""Calls a Python function: what ``python`` programs are.

    call MODULE:NAME FOLDER ARGUMENTS    FOLDER is where modules are looked for first; ARGUMENTS are
                                         a JSON object of texts, passed by name

What the function returns is printed as a line of JSON, None as nothing. An exception ends the
program with 1 and a traceback.
"""

import importlib
import json
import sys


def main(target: str, folder: str, arguments: str) -> None:
    """Import, call, print."""
    if folder:
        sys.path.insert(0, folder)
    module, _, name = target.partition(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    if result is not None:
        sys.stdout.write(json.dumps(result, default=str) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
