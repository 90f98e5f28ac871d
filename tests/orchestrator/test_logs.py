"""Log lines: their two formats, and how they follow a wake through the modules."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dns_boot.query import ask
from orchestrator import logs
from orchestrator.logs import LogFormat, LogLevel
from orchestrator.trace import WakeTrace
from orchestrator.wake_context import facts, working_for
from tests.orchestrator.test_daemon_names import running
from tests.world import an_image

log = logging.getLogger("orchestrator.test")
Written = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Return where lines go; what was set up before is put back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.OURS}
    root.handlers = []
    yield io.StringIO()
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def written(stream: io.StringIO) -> Written:
    """Write JSON from debug on, and return what reads it."""
    logs.set_up(LogFormat.JSON, LogLevel.DEBUG, stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_time_level_logger_and_message(written: Written) -> None:
    log.warning("%s is odd", 'a "name"\nwith a line')
    (line,) = written()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "warning",
        "logger": "orchestrator.test",
        "message": 'a "name"\nwith a line is odd',
    }


def test_a_time_is_utc(written: Written) -> None:
    log.info("now")
    at = datetime.fromisoformat(written()[0]["time"])
    assert abs(at.timestamp() - datetime.now(at.tzinfo).timestamp()) < 60


def test_facts_of_a_line_go_before_those_of_its_wake(written: Written) -> None:
    trace = WakeTrace("web", number=17)
    trace.host = "a"
    with working_for(trace):
        log.info("one")
        log.info("two", extra=facts(host="b", wake="18", name="x"))
    log.info("three")
    told = [
        {key: line[key] for key in ("wake", "service", "host", "name") if key in line}
        for line in written()
    ]
    assert told == [
        {"wake": 17, "service": "web", "host": "a"},
        {"wake": 18, "service": "web", "host": "b", "name": "x"},
        {},
    ]


def test_a_fact_cannot_feign_a_field(written: Written) -> None:
    log.info("said", extra=facts(time="never", level="none", message="other"))
    (line,) = written()
    assert (line["level"], line["message"]) == ("info", "said")
    assert line["time"] != "never"


def test_a_traceback_is_in_the_line(written: Written) -> None:
    try:
        int("odd")
    except ValueError:
        log.exception("it failed")
    (line,) = written()
    assert line["error"].endswith("'odd'")


def test_console_lines_name_the_wake_and_move_no_cursor(stream: io.StringIO) -> None:
    logs.set_up(LogFormat.CONSOLE, LogLevel.INFO, stream)
    with working_for(WakeTrace("web", number=17)):
        log.info("a\x1b[2Jb")
        log.debug("too little")
    log.info("none")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("INFO    orchestrator.test: [wake 17] a\\x1b[2Jb")
    assert second.endswith("orchestrator.test: none")


def test_a_child_process_can_log_alike(stream: io.StringIO) -> None:
    for wanted in ((LogFormat.JSON, LogLevel.DEBUG), (LogFormat.CONSOLE, LogLevel.ERROR)):
        logs.set_up(*wanted, stream)
        assert logs.chosen() == wanted


def test_other_packages_tell_only_warnings(stream: io.StringIO) -> None:
    logs.set_up(LogFormat.CONSOLE, LogLevel.DEBUG, stream)
    logging.getLogger("theirs").info("chatter")
    assert not stream.getvalue()


def test_one_cold_wake_is_followed_through_every_module(tmp_path: Path, written: Written) -> None:
    with running(tmp_path, an_image(tmp_path), "  web: {}\n") as daemon:
        assert ask(daemon.dns_address, "web.names.test").rcode == "NOERROR"
    lines = [line for line in written() if line.get("service") == "web" and "wake" in line]
    assert {line["wake"] for line in lines} == {1}
    way = [line["logger"] for line in lines]
    assert {
        "dns_boot.resolver",
        "orchestrator.activator",
        "orchestrator.waking",
        "orchestrator.boot",
        "orchestrator.hypervisors.memory",
        "edgewake",
    } <= set(way)
    told = next(line for line in lines if line["message"].startswith("web was told"))
    assert (told["host"], told["instance"]) == ("a", "ew-t-web-0")


def test_nothing_that_others_chose_feigns_a_line_of_its_own(stream: io.StringIO) -> None:
    logs.set_up(LogFormat.CONSOLE, LogLevel.INFO, stream)
    log.info("a\n2026-01-01 INFO feigned\u2028x\x85y\x9b2J")
    first, second = stream.getvalue().splitlines()
    assert first.endswith(": a")
    assert second == "    2026-01-01 INFO feigned\\u2028x\\x85y\\x9b2J"
