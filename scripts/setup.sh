#!/usr/bin/env bash
# Installs whatever this machine lacks for edgewake, and nothing else: Debian packages, then a
# virtual environment in .venv. Run again, it only looks, which takes well under a second.
#
#   scripts/setup.sh          what `make demo` and `make test` need
#   scripts/setup.sh bench    also what `make bench` compares us with
#
# PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin" # a shell from `su` lacks them

BASE=(
    libvirt-daemon libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients
    qemu-system-x86 busybox-static kmod
    tini # ends libvirt's guests properly where there is no systemd
    dnsutils iproute2
    dnsmasq-base # for guest networks with DHCP
    iputils-ping iperf3 nftables # redirects, chains, and programs that run on virtual routers
    bird2 # for virtual networks with `routing: ospf`
    libxml2-utils tcpdump minisign skopeo # for tests: virt-xml-validate, captures, catalogues
    chromium fonts-dejavu-core # for tests: a real browser
    knot knot-dnsutils nsd dnsdist unbound # for tests: secondaries, and servers in front of ours
    libvirt-dev pkg-config gcc python3-dev python3-venv # libvirt-python is compiled here
    make git openssh-client curl
)
BENCH=(dnsperf)
KERNEL=/var/lib/edgewake/kernel # images/build/linux_microvm.py looks there, too

say() { echo "==> $*"; }
fail() {
    echo "setup: $*" >&2
    exit 1
}

missing() {
    local installed
    installed=" $(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' "$@" 2>/dev/null |
        sed -n 's/^ii *//p' | tr '\n' ' ' || true)" # dpkg-query fails where one is missing
    for package in "$@"; do
        [[ $installed == *" $package "* ]] || echo "$package"
    done
}

as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root, and there is no sudo; as root, run: make setup"
    fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" \
        </dev/null
}

install_debian_packages() {
    local packages
    mapfile -t packages < <(missing "$@")
    [[ ${#packages[@]} -gt 0 ]] || return 0
    local command="apt-get install --no-install-recommends ${packages[*]}"
    if [[ $(id -u) != 0 ]] && ! command -v sudo >/dev/null; then
        fail "Debian packages are missing; as root, run: $command"
    fi
    say "installing Debian packages: ${packages[*]}"
    hold_servers_back "${packages[@]}"
    apt update || fail "apt-get update failed; see above, then run: $command"
    apt install --no-install-recommends "${packages[@]}" ||
        fail "apt-get install failed; see above, then run: $command"
    let_servers_rest "${packages[@]}"
}

# We want these programs, not name servers on port 53 of this machine, nor its routes from BIRD. Debian's
# packages start one when they are installed, unless the unit is masked; a mask in /run is gone after a
# reboot, even if we are killed half-way. Only what *we* install is treated so: a server that was here
# is in use. A package whose unit has another name is written PACKAGE:UNIT.
SERVERS=(bird2:bird knot nsd dnsdist unbound)

hold_servers_back() {
    local server
    [[ -d /run/systemd/system ]] || return 0
    for server in "${SERVERS[@]}"; do
        [[ " $* " != *" ${server%:*} "* ]] ||
            as_root systemctl mask --runtime --quiet "${server#*:}.service"
    done
}

let_servers_rest() {
    local server
    for server in "${SERVERS[@]}"; do
        [[ " $* " == *" ${server%:*} "* ]] || continue
        server=${server#*:}
        if [[ -d /run/systemd/system ]]; then
            as_root systemctl unmask --runtime --quiet "$server.service"
            as_root systemctl disable --quiet "$server.service"
        elif [[ -x /etc/init.d/$server ]]; then
            as_root update-rc.d "$server" disable
            as_root "/etc/init.d/$server" stop || say "$server was not running"
        fi
    done
}

# The sample guest's kernel is Debian's cloud kernel. It is unpacked and not installed: installing it
# would offer this machine itself a kernel without drivers for real hardware, and GRUB might take it.
unpack_kernel() {
    local package folder
    compgen -G '/boot/vmlinuz-*-cloud-amd64' >/dev/null && return
    compgen -G "$KERNEL/boot/vmlinuz-*-cloud-amd64" >/dev/null && return
    as_root true # or say at once that we may not
    say "fetching the sample guest's kernel, to be unpacked in $KERNEL"
    package=$(cloud_kernel)
    [[ -n $package ]] || { apt update && package=$(cloud_kernel); }
    [[ -n $package ]] || fail "no Debian package linux-image-cloud-amd64; see /etc/apt/sources.list"
    folder=$(mktemp -d)
    (cd "$folder" && apt-get -q download "$package") ||
        fail "the Debian package $package cannot be downloaded; see above, then try again"
    [[ -d ${KERNEL%/*} ]] || as_root install -d -m 0711 "${KERNEL%/*}"
    as_root install -d -m 0755 "$KERNEL.new"
    as_root dpkg-deb -x "$folder"/*.deb "$KERNEL.new"
    [[ -d $KERNEL.new/lib ]] || as_root ln -s usr/lib "$KERNEL.new/lib" # as newer Debians have it
    as_root depmod -b "$KERNEL.new" "$(cd "$KERNEL.new/lib/modules" && ls)"
    as_root mv "$KERNEL.new" "$KERNEL"
    rm -r "$folder"
}

# libvirt notes there which guest has which card of a network, but makes the folder only for networks
# with a dnsmasq; ours have none, and on a fresh machine none of their guests would start.
make_network_folder() {
    local folder=/var/lib/libvirt/dnsmasq
    [[ -d $folder ]] || as_root install -d -m 0755 "$folder"
}

# Debian's udev lets every user open a tap's device, which Solo5's tenders need, and the group kvm that of
# KVM: where QEMU's user may not open it, libvirt asks QEMU anew what it can at every start of a guest, for
# six seconds. Containers have no udev, and there only root may open either.
open_devices() {
    [[ ! -d /run/udev ]] || return 0
    set_mode /dev/net/tun 666 root
    set_mode /dev/kvm 660 kvm
}

set_mode() { # DEVICE MODE GROUP
    [[ -c $1 && $(stat -c '%a %G' "$1") != "$2 $3" ]] || return 0
    say "$1: group $3, mode $2, as udev has it"
    { as_root chgrp "$3" "$1" && as_root chmod "$2" "$1"; } || say "$1 stays as it is"
}

cloud_kernel() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: //p' | head -n 1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "edgewake needs Python 3.11 or newer, and ${PYTHON:-python3} is not;" \
        "name another one: make PYTHON=/path/to/python3.12 setup"
}

make_environment() {
    local python wanted stamp=.venv/edgewake-stamp
    python=$(find_python)
    wanted=$("$python" -VV; pwd; cat pyproject.toml)
    wanted=$(sha256sum <<<"$wanted")
    if [[ -x .venv/bin/edgewake && -f $stamp && $(cat $stamp) == "$wanted" ]] &&
        .venv/bin/python -c ''; then
        return
    fi
    if [[ ! -f .venv/bin/pip ]] || ! .venv/bin/python -c '' 2>/dev/null ||
        [[ $(.venv/bin/python -VV) != $("$python" -VV) || $(moved) == yes ]]; then
        say "making a virtual environment in .venv with $python"
        "$python" -m venv --clear .venv
    fi
    say "installing Python packages into .venv (the first time takes a minute or two)"
    .venv/bin/python -m pip install --no-input --disable-pip-version-check -e '.[dev]' </dev/null ||
        fail "pip could not install edgewake's Python packages; see above, then try again"
    echo "$wanted" >$stamp
}

# A virtual environment knows its own path and does not work from another one.
moved() {
    grep -qF "VIRTUAL_ENV=\"$PWD/.venv\"" .venv/bin/activate ||
        grep -qF "VIRTUAL_ENV=$PWD/.venv" .venv/bin/activate || echo yes
}

if ! command -v dpkg-query >/dev/null || [[ $(dpkg --print-architecture) != amd64 ]]; then
    fail "this sets up Debian 12 on amd64 only; elsewhere, install libvirt with its QEMU driver," \
        "then: python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'"
fi
case ${1:-} in
    "") install_debian_packages "${BASE[@]}" ;;
    bench) install_debian_packages "${BASE[@]}" "${BENCH[@]}" ;;
    *) fail "unknown argument $1; there is only: bench" ;;
esac
make_network_folder
open_devices
unpack_kernel
make_environment
