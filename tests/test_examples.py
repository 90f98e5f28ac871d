"""Every file in `examples/` works; each lab there is what its comments say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.labfile import load_lab
from orchestrator.topology import Topology
from placement.study import Study, load, run

EXAMPLES = Path(__file__).parents[1] / "examples"
LABS = sorted(EXAMPLES.glob("*.yaml"))
SLACK = 0.025  # the exact variant of a study is allowed a gap of 2 %
STUDIES = sorted(EXAMPLES.glob("studies/*.yaml"))


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_each_lab_loads(path: Path) -> None:
    lab = load_lab(path)
    assert lab.network.run or (lab.hosts and lab.services)
    assert lab.populations


def test_there_are_two_studies() -> None:
    assert {path.stem for path in STUDIES} == {"heuristics", "edge-churn"}


def test_there_are_four_labs() -> None:
    assert {path.stem for path in LABS} >= {"demo", "nine-mini-pcs", "four-mecs", "processes"}


def test_the_processes_need_no_hypervisor_and_no_image() -> None:
    lab = load_lab(EXAMPLES / "processes.yaml")
    assert [host.uri for host in lab.hosts] == ["netns:///"]
    assert all(image.exec and not image.files for image in lab.images)
    assert all(Path(image.exec[0]).exists() for image in lab.images)


def test_the_demo_is_one_machine_on_loopback_and_its_own_network() -> None:
    lab = load_lab(EXAMPLES / "demo.yaml")
    (host,) = lab.hosts
    assert host.uri == "qemu:///system"
    assert host.network.create
    assert str(host.network.subnet) == "10.213.77.0/24"
    assert (lab.dns.listen, lab.dns.port) == ("127.0.0.1", 5391)
    assert {service.name for service in lab.services} == {"web", "api", "program"}


def test_the_mini_pcs_are_nine_xen_hosts_on_a_network_that_is_not_ours() -> None:
    lab = load_lab(EXAMPLES / "nine-mini-pcs.yaml")
    assert [host.uri for host in lab.hosts] == [
        f"xen+ssh://root@pc{number}/system" for number in range(1, 10)
    ]
    assert not any(host.network.create for host in lab.hosts)
    assert sum(population.name.startswith("mote") for population in lab.populations) == 9


def test_from_upf_1_the_four_mecs_are_as_far_as_they_were_measured_to_be() -> None:
    lab = load_lab(EXAMPLES / "four-mecs.yaml")
    names = ["mec1-host", "mec2-host", "mec3-host", "cloud-host", "mec4-host"]
    topology = Topology.of(lab)
    assert [topology.latency_ms("upf-1", name) for name in names] == [6, 24, 30, 36, 42]


def test_the_latency_bound_of_the_four_mecs_leaves_the_sites_its_comment_says() -> None:
    lab = load_lab(EXAMPLES / "four-mecs.yaml")
    bound = lab.service("app").latency_bound_ms
    assert bound is not None
    topology = Topology.of(lab)
    near = {
        host.name
        for host in lab.hosts
        if all(topology.latency_ms(clients.name, host.name) <= bound for clients in lab.populations)
    }
    assert near == {"mec1-host", "mec3-host", "cloud-host"}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_study_runs_and_gives_the_plans_of_its_report(path: Path, tmp_path: Path) -> None:
    """Other versions of a solver may choose another of several best plans, of the same value."""
    agreed = pd.read_csv(path.with_suffix("") / "results.csv")
    outcome = run(Study.read(path), tmp_path)
    assert outcome.failed == 0
    table = load(tmp_path)
    keys = ["setting", "seed", "repetition", "algorithm"]
    assert table[keys].equals(agreed[keys])
    assert table["status"].eq("ok").all()
    greedy = ~table["algorithm"].str.startswith(("exact", "ladder", "repair"))
    assert list(table.loc[greedy, "value"]) == pytest.approx(list(agreed.loc[greedy, "value"]))
    if "epochs" not in table:  # under churn, what an epoch chose among equals changes the next
        close = table["gap"].le(SLACK) & agreed["gap"].le(SLACK)
        assert close.any()
        found, told = (list(each.loc[close, "value"]) for each in (table, agreed))
        assert found == pytest.approx(told, rel=SLACK)


def test_the_notebook_runs_from_the_first_cell_to_the_last(tmp_path: Path) -> None:
    notebook = EXAMPLES / "placement_notebook.py"
    command = [sys.executable, "-W", "error", str(notebook)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "12 runs, 0 without a plan" in done.stdout
    assert "proven: True" in done.stdout
    assert (tmp_path / "notebook" / "report.md").is_file()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_figures_of_each_report_are_there(path: Path) -> None:
    page = path.with_suffix("") / "report.md"
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert len(links) > 5
    assert all((page.parent / link).is_file() for link in links)
