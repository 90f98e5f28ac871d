"""What chains mean for wakes and sleep: the functions of a chain are awake while its end is.

Pure, but for the futures that are joined. Who leads packets through them is `steering.chains`.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Lock

from orchestrator.errors import NotReady, WakeError
from orchestrator.model import Endpoint, Lab

Endpoints = tuple[Endpoint, ...]


def functions_by_end(lab: Lab) -> dict[str, tuple[str, ...]]:
    """Return, by the service at the end of a chain, the functions that come before it, in order."""
    return {chain.functions[-1]: chain.functions[:-1] for chain in lab.chains}


def ends_by_function(lab: Lab) -> dict[str, tuple[str, ...]]:
    """Return, by function, the services at the end of the chains that it is in."""
    found: dict[str, tuple[str, ...]] = {}
    for end, functions in functions_by_end(lab).items():
        for name in functions:
            found[name] = (*found.get(name, ()), end)
    return found


def joined(
    service: str,
    own: Future[Endpoints],
    functions: Mapping[str, Future[Endpoints]],
    answer: Callable[[], Endpoints],
) -> Future[Endpoints]:
    """Return what completes with `answer()` when a service and all functions before it are awake.

    It fails as soon as one of them does.
    """
    whole: Future[Endpoints] = Future()
    left = {service, *functions}
    lock = Lock()

    def finish(name: str, part: Future[Endpoints]) -> None:
        error = part.exception()
        with lock:
            left.discard(name)
            if whole.done() or (left and error is None):
                return
            if error is not None:
                whole.set_exception(error if name == service else _of_function(service, error))
            elif endpoints := answer():
                whole.set_result(endpoints)
            else:
                whole.set_exception(NotReady(service, "it ended just after it had answered"))

    own.add_done_callback(lambda part: finish(service, part))
    for name, part in functions.items():
        part.add_done_callback(lambda part, name=name: finish(name, part))  # type: ignore[misc]
    return whole


def _of_function(service: str, error: BaseException) -> BaseException:
    """Return a function's failure as that of the service that needs it."""
    if not isinstance(error, WakeError):
        return error
    return type(error)(service, f"a function of its chain is not awake: {error.message}")
