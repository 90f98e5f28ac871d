"""How much memory the process takes, with many services known, woken and asked for.

The numbers are resident set sizes (RSS) of one `edgewake up` with hosts in memory, read from /proc
at each step. The ratio is to the 150 MB that the process may have on a small edge box; the base
line is a bare Python with our dependencies imported and nothing running.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.cold_path import HEAD
from dns_boot.query import ask
from images.build.linux_microvm import build

PORT = 5396
LIMIT_MB = 150.0
BARE = "import orchestrator.daemon, signal; print(flush=True); signal.pause()"


def rss_mb(pid: int) -> float:
    """Return a process's resident set size in MB (10**6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def bare() -> float:
    """Return the RSS of a Python that has imported everything and runs nothing."""
    with subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE) as process:
        _line(process)
        size = rss_mb(process.pid)
        process.terminate()
    return size


def _line(process: subprocess.Popen[bytes]) -> bytes:
    """Read one line of what a process says; an end instead is an error of the benchmark."""
    line = process.stdout.readline() if process.stdout else b""
    if not line:
        raise SystemExit("the process to be measured ended before it was ready")
    return line


def measured(folder: Path, services: int, queries: int) -> list[tuple[str, float]]:
    """Start edgewake, wake every service, ask warm names many times; note the RSS at each step."""
    lab = folder / "lab.yaml"
    names = "".join(f"  s{number}: {{}}\n" for number in range(services))
    lab.write_text(HEAD.format(uri="memory:///", port=PORT) + names)
    build(folder / "state" / "images" / "linux-microvm")
    command = [sys.executable, "-m", "orchestrator", "--state", str(folder / "state"), "up"]
    with subprocess.Popen(
        [*command, "--ephemeral", "--json", str(lab)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _line(process)
            steps = [(f"up, {services} services known", rss_mb(process.pid))]
            for number in range(services):
                ask(("127.0.0.1", PORT), f"s{number}.bench.test")
            steps.append((f"{services} services awake", rss_mb(process.pid)))
            for number in range(queries):
                ask(("127.0.0.1", PORT), f"s{number % services}.bench.test")
            steps.append((f"after {queries} warm queries", rss_mb(process.pid)))
        finally:
            process.terminate()
    return steps


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--services", type=int, default=500)
    options.add_argument("--queries", type=int, default=5000)
    chosen = options.parse_args()
    table = Table("process", "RSS MB", f"of {LIMIT_MB:g} MB", title="resident memory")
    with tempfile.TemporaryDirectory(prefix="edgewake-bench-") as folder:
        steps = measured(Path(folder), chosen.services, chosen.queries)
    for step, size in [("imports only", bare()), *steps]:
        table.add_row(step, f"{size:.0f}", f"{size / LIMIT_MB:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
