"""Where runs happen: worker processes of this machine, or a Dask cluster.

Both are a `concurrent.futures.Executor`; `placement.study.cells.perform` is what is submitted.
"""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from placement.study.cells import Cells
from placement.study.errors import StudyError
from placement.study.extras import optional

DASK = "dask://"
CONNECT_S = 20.0


@contextmanager
def executor(where: str, workers: int) -> Iterator[Executor]:
    """Yield the executor of ``local`` or of ``dask://host:port``.

    `workers` counts only locally; a cluster has as many as it has. When the block is left by an
    error, what runs is ended.

    Raises:
        MissingExtra: Dask is not installed.
        StudyError: the cluster does not answer.

    """
    if where.startswith(DASK):
        with _dask(where.removeprefix(DASK)) as found:
            yield found
        return
    cells = Cells()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="study", initializer=cells.join)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        cells.close()
        pool.shutdown()


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    distributed = optional("distributed", "dask")
    try:
        client = distributed.Client(f"tcp://{address}", timeout=CONNECT_S, set_as_default=False)
    except OSError as error:
        raise StudyError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        yield client.get_executor(pure=False)
