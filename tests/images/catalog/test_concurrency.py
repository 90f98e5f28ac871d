"""Several processes and threads use one catalogue at once, and nothing is lost."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from images.catalog import Adding, Catalog
from images.errors import ImageError
from tests.images.catalog.ready import ready

WORKERS, ROUNDS = 4, 6

Make = Callable[..., Catalog]


def _work(
    make: Make, root: Path, folder: Path, worker: int, errors: "multiprocessing.Queue[str]"
) -> None:
    catalog = make(root)
    try:
        for turn in range(ROUNDS):
            own = folder / f"{worker}-{turn}"
            own.write_bytes(b"KERN %d %d" % (worker, turn))
            shared = folder / f"shared-{turn}"
            catalog.add_from(f"own:{worker}-{turn}", str(own))
            catalog.add_from(f"shared:{turn}", str(shared), how=Adding(flavour=f"f{worker}"))
            catalog.add_from("passing", str(own), how=Adding(flavour=f"f{worker}", replace=True))
            catalog.collect(grace_s=0)
            ready(catalog, f"own:{worker}-{turn}")
    except ImageError as error:
        errors.put(f"{type(error).__name__}: {error}")


def test_processes_add_and_collect_at_once(open_catalog: Make, root: Path, tmp_path: Path) -> None:
    for turn in range(ROUNDS):
        (tmp_path / f"shared-{turn}").write_bytes(b"KERN shared %d" % turn)
    fork = multiprocessing.get_context("fork")
    errors: multiprocessing.Queue[str] = fork.Queue()
    processes = [
        fork.Process(target=_work, args=(open_catalog, root, tmp_path, worker, errors))
        for worker in range(WORKERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert errors.empty(), errors.get()
    assert [process.exitcode for process in processes] == [0] * WORKERS
    catalog = open_catalog()
    assert catalog.verify() == ()
    refs = {entry.ref: entry for entry in catalog.list()}
    for turn in range(ROUNDS):
        assert len(refs[f"shared:{turn}"].flavours) == WORKERS
        for worker in range(WORKERS):
            image = ready(catalog, refs[f"own:{worker}-{turn}"])
            assert image.main_file.read_bytes() == b"KERN %d %d" % (worker, turn)


def test_threads_share_one_catalogue(catalog: Catalog, tmp_path: Path) -> None:
    def work(worker: int) -> bytes:
        path = tmp_path / str(worker)
        path.write_bytes(b"KERN %d" % worker)
        catalog.add_from(f"web:{worker}", str(path))
        return ready(catalog, f"web:{worker}").main_file.read_bytes()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(12))) == [b"KERN %d" % worker for worker in range(12)]
    assert len(catalog.list()) == 12
