"""What this process takes of its machine."""

import time

from orchestrator.process_usage import usage


def test_the_process_is_there_and_began_once() -> None:
    before, after = usage(), usage()
    assert before.started_at == after.started_at, "else it would look as if it was started again"
    assert time.time() - 86_400 < before.started_at <= time.time()
    assert 0 < before.cpu_s <= after.cpu_s
    assert before.resident_bytes > 1 << 20
    assert 3 <= before.open_files < before.most_files
