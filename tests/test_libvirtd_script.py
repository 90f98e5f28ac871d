"""`scripts/libvirtd.sh` without systemd, with files, network and processes of its own."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "libvirtd.sh"
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
# /run on the disk that the folder is on, and nothing of this machine's libvirt.
INSIDE = """
set -e
mount --make-rprivate /
mount --bind "$1" /run
for path in /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do mount -t tmpfs none $path; done
[ -z "$2" ] || { mkdir /run/libvirt; touch "/run/libvirt/$2"; }
"$3" start >&2
stat -f -c %T /run/libvirt
"$3" stop >&2
"""

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.mark.parametrize("there", ["", "somebody's"])
def test_state_is_kept_in_memory_where_nothing_is_there_yet(tmp_path: Path, there: str) -> None:
    on = subprocess.run(
        ["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True
    )
    wanted = on.stdout.strip() if there else "tmpfs"
    argv = [*UNSHARE, "bash", "-c", INSIDE, "bash", str(tmp_path), there, str(SCRIPT)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout.split()) == (0, [wanted]), done.stderr
