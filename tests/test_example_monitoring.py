"""The example dashboard, scrape configuration and alert rules name only metrics that there are.

What there is, docs/metrics.md says, which another test keeps exact.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
RULES = EXAMPLES / "prometheus" / "alerts.yml"
CONFIG = EXAMPLES / "prometheus" / "prometheus.yml"
DASHBOARD = EXAMPLES / "grafana" / "edgewake.json"

ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) \| .+ \|$", re.MULTILINE)
NAME = re.compile(r"\b(?:edgewake|process)_[a-z0-9_]+\b|\bup\b")
MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
FROM_LABEL = re.compile(r"label_values\((\w+), (\w+)\)")
OF_SCRAPES = {"job", "instance"}  # labels that Prometheus gives to everything


def known() -> dict[str, set[str]]:
    """Return the labels of every series by its name, a histogram's three with it."""
    found: dict[str, set[str]] = {"up": set(OF_SCRAPES)}
    for name, kind, labels in ROW.findall((ROOT / "docs" / "metrics.md").read_text()):
        has = set(re.findall(r"`(\w+)`", labels)) | OF_SCRAPES
        if kind == "histogram":
            found |= {f"{name}_bucket": has | {"le"}, f"{name}_sum": has, f"{name}_count": has}
        else:
            found[name] = has
    return found


def wrong(expression: str, also: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """Return the names and labels of an expression that there are not; `also`: labels told of."""
    series = known()
    bare = re.sub(r'"[^"]*"', '""', expression)
    names = set(NAME.findall(bare))
    labels = set().union(*(series.get(name, set()) for name in names))
    used = set(MATCHER.findall(bare)) | also
    for group in GROUPING.findall(bare):
        used |= {label.strip() for label in group.split(",")} - {""}
    return sorted((names - series.keys()) | (used - labels)) + ([] if names else ["no metric"])


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] != "row":
            yield panel


TARGETS = [
    pytest.param(target["expr"], target["legendFormat"], id=f"{panel['title']}-{target['refId']}")
    for panel in panels()
    for target in panel["targets"]
]
ALERTS = [
    pytest.param(rule, id=rule["alert"])
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize(("expression", "legend"), TARGETS)
def test_each_query_of_the_dashboard_finds_something(expression: str, legend: str) -> None:
    assert wrong(expression, set(re.findall(r"{{(\w+)}}", legend))) == []


@pytest.mark.parametrize("rule", ALERTS)
def test_each_alert_finds_something_and_says_what_to_do(rule: dict[str, Any]) -> None:
    told = rule["annotations"]
    labels = set(re.findall(r"\$labels\.(\w+)", told["summary"] + told["description"]))
    assert wrong(rule["expr"], labels) == []
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert all(told[key].rstrip().endswith(".") for key in ("summary", "description"))


def test_the_check_finds_what_is_wrong() -> None:
    assert wrong('edgewake_wakes_total{servce="x"}') == ["servce"]
    assert wrong("sum by (hots) (edgewake_host_reachable)") == ["hots"]
    assert wrong("rate(edgewake_wakes[5m])") == ["edgewake_wakes"]
    assert wrong("edgewake_wake_seconds") == ["edgewake_wake_seconds"]
    assert wrong("vector(1)") == ["no metric"]
    assert wrong("edgewake_host_reachable", {"service"}) == ["service"]


def test_the_dashboard_is_for_any_prometheus_and_any_lab() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    first, *others = dashboard["templating"]["list"]
    assert (first["name"], first["type"]) == ("datasource", "datasource")
    series = known()
    for variable in others:
        ((metric, label),) = FROM_LABEL.findall(variable["query"]["query"])
        assert label in series[metric]
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels())
    assert all(panel["description"].endswith(".") for panel in panels())
    assert not re.search(r"https?://|localhost|127\.0\.0\.1", DASHBOARD.read_text())


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        mine = {
            (at["x"] + across, at["y"] + down)
            for across in range(at["w"])
            for down in range(at["h"])
        }
        assert not cells & mine, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= mine


def test_what_people_ask_for_is_on_it() -> None:
    told = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    shown = set(NAME.findall(told))
    for wanted in (
        "edgewake_service_wake_seconds_bucket",
        "edgewake_wake_stage_seconds_sum",
        "edgewake_dns_queries_total",
        "edgewake_host_memory_bytes",
        "edgewake_host_cpu_cores",
        "edgewake_last_plan_gap_ratio",
        "edgewake_host_failures_total",
    ):
        assert wanted in shown
    assert all(f"histogram_quantile({share}" in told for share in (0.5, 0.95, 0.99))


def test_prometheus_is_told_where_to_ask_and_how() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape["metrics_path"] == "/api/v1/metrics"
    assert scrape["authorization"] == {"type": "Bearer", "credentials_file": "edgewake.token"}
    assert [CONFIG.parent / name for name in config["rule_files"]] == [RULES]
    asked = {rule.values[0]["expr"] for rule in ALERTS}
    assert any(f'job="{scrape["job_name"]}"' in expression for expression in asked)
