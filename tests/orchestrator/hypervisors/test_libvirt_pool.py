"""What a libvirt pool reads and writes as text; what it does is in `test_libvirt_depot`."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from orchestrator.hypervisors.libvirt_pool import files_of, pool_uuid, pool_xml, qemu_user

_DAC = "<secmodel><model>dac</model><doi>0</doi>{}</secmodel>"


@pytest.mark.parametrize(
    ("models", "user"),
    [
        (_DAC.format("<baselabel type='kvm'>+64055:+108</baselabel>"), (64055, 108)),
        (_DAC.format("<baselabel type='qemu'>+0:+0</baselabel>"), (0, 0)),
        (_DAC.format(""), None),
        (_DAC.format("<baselabel type='kvm'>somebody:else</baselabel>"), None),
        ("<secmodel><model>none</model><baselabel>+1:+1</baselabel></secmodel>", None),
        ("", None),
    ],
)
def test_who_guests_run_as_is_read_from_the_capabilities(
    models: str, user: tuple[int, int] | None
) -> None:
    assert qemu_user(f"<capabilities><host>{models}</host></capabilities>") == user


def test_the_files_of_a_domain_are_kernel_disks_and_what_disks_lean_on() -> None:
    xml = """<domain>
      <os><kernel>/d/kernel</kernel><initrd>/d/initrd</initrd></os>
      <devices>
        <disk type='file'><source file='/d/overlay'/>
          <backingStore type='file'><format type='raw'/><source file='/d/base'/></backingStore>
        </disk>
        <disk type='block'><source dev='/dev/sda'/></disk>
        <interface type='network'><source network='n'/></interface>
      </devices></domain>"""
    expected = {Path("/d") / name for name in ("kernel", "initrd", "overlay", "base")}
    assert files_of(xml) == expected
    assert files_of("<domain><os/></domain>") == frozenset()


def test_a_pool_belongs_to_one_owner() -> None:
    root = ET.fromstring(pool_xml("me", Path("/depot/me & you")))  # noqa: S314 - our own
    assert root.findtext("uuid") == pool_uuid("me") != pool_uuid("you")
    assert root.findtext("target/path") == "/depot/me & you"
