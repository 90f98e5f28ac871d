"""Every file in `examples/` works; each lab there is what its comments say."""

from pathlib import Path

import pytest

from orchestrator.labfile import load_lab
from orchestrator.topology import Topology

EXAMPLES = Path(__file__).parents[1] / "examples"
LABS = sorted(EXAMPLES.glob("*.yaml"))


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_each_lab_loads(path: Path) -> None:
    lab = load_lab(path)
    assert lab.hosts
    assert lab.services
    assert lab.populations


def test_there_are_three_labs() -> None:
    assert {path.stem for path in LABS} >= {"demo", "nine-mini-pcs", "four-mecs"}


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
