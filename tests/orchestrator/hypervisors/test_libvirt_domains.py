"""What is asked of one domain: whether a call that does not end holds it."""

from typing import Any, cast

import libvirt
import pytest

from orchestrator.hypervisors.libvirt_domains import job_s


class Held:
    """A domain of which libvirt says so about its job."""

    def __init__(self, kind: int, elapsed_ms: int) -> None:
        self._info = [kind, elapsed_ms] + [0] * 10

    def jobInfo(self) -> list[int]:  # noqa: N802 - libvirt's name
        return self._info


class Gone:
    """A domain that has ended."""

    def jobInfo(self) -> list[int]:  # noqa: N802 - libvirt's name
        raise libvirt.libvirtError("no such domain")


@pytest.mark.parametrize(
    ("domain", "seconds"),
    [
        (Held(libvirt.VIR_DOMAIN_JOB_NONE, 0), 0.0),
        (Held(libvirt.VIR_DOMAIN_JOB_UNBOUNDED, 2156), 2.156),
        (Held(libvirt.VIR_DOMAIN_JOB_UNBOUNDED, 0), 0.001),
        (Gone(), 0.0),
    ],
)
def test_how_long_a_domain_has_been_held(domain: object, seconds: float) -> None:
    assert job_s(cast("Any", domain)) == seconds
