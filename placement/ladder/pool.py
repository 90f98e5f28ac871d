"""The processes that solve parts: an executor that is handed in, processes of our own, or none."""

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from placement.problem import SolverFailed


@contextmanager
def pool(executor: Executor | None, processes: int) -> Iterator[Executor | None]:
    """Yield what solves parts: the executor given, else so many processes, None for this one.

    Raises:
        SolverFailed: the processes cannot start.

    """
    if executor is not None or processes < 2:
        yield executor
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as own:
        try:
            yield own
        except BrokenProcessPool as error:
            raise SolverFailed(
                "the processes that solve parts cannot start: a program that asks for several "
                'threads must be guarded by `if __name__ == "__main__":`'
            ) from error
