#!/usr/bin/env bash
# Sees to it that this machine's libvirt answers, with or without systemd.
#
#   scripts/libvirtd.sh start     start libvirtd and virtlogd unless they answer
#   scripts/libvirtd.sh stop      end only what `start` started; guests go on running
#   scripts/libvirtd.sh status    say what answers; exit 0 if both do
#
# What we started is noted in /run/edgewake-setup, which does not outlive a reboot.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin" # a shell from `su` lacks them

NOTES=/run/edgewake-setup
STATE=/run/libvirt
WAIT_S=30
# virtlogd first: libvirtd asks it to keep the guests' consoles.
DAEMONS=(virtlogd libvirtd)

say() { echo "==> $*"; }
fail() {
    echo "libvirtd: $*" >&2
    exit 1
}

answers() {
    case $1 in
        virtlogd) timeout 10 virt-admin -q -c virtlogd:///system uri ;;
        libvirtd) timeout 10 virsh -q -c qemu:///system uri ;;
    esac >/dev/null 2>&1 </dev/null
}

await() {
    local end=$((SECONDS + WAIT_S))
    until answers "$1"; do
        ((SECONDS < end)) || fail "$1 was started but does not answer after $WAIT_S s;" \
            "run it by hand to see why: $1"
        sleep 0.2
    done
}

# libvirt writes a guest's state down whenever it changes, and waits for it to be on the disk. On most
# machines /run is in memory; where it is not, as in many containers, its folder there is to be. Only
# where nothing is there yet, so that nothing is hidden.
keep_state_in_memory() {
    [[ $(stat -f -c %T /run) != tmpfs ]] || return 0
    mkdir -p "$STATE"
    [[ -z $(ls -A "$STATE") ]] || return 0
    mount -t tmpfs -o mode=0755 edgewake "$STATE" 2>/dev/null ||
        say "$STATE stays on the disk: it cannot be mounted here"
}

start() {
    local name
    [[ -d /run/systemd/system ]] || keep_state_in_memory
    for name in "${DAEMONS[@]}"; do
        answers "$name" && continue
        say "starting $name"
        mkdir -p -m 0755 "$NOTES"
        if [[ -d /run/systemd/system ]]; then
            systemctl start "$name.service" || fail "see: journalctl -u $name"
            touch "$NOTES/$name.unit"
        else
            # Guests that have ended are reaped by tini, at once; process 1 of a container may take
            # a second or two, and whoever ends a guest waits for that.
            setsid tini -s -- "$name" --pid-file "$NOTES/$name.pid" </dev/null >/dev/null 2>&1 &
            disown
        fi
        await "$name"
    done
}

stop() {
    local name
    for name in libvirtd virtlogd; do
        if [[ -f $NOTES/$name.unit ]]; then
            say "stopping $name"
            systemctl stop "$name.service"
            rm -f "$NOTES/$name.unit"
        elif [[ -f $NOTES/$name.pid ]]; then
            stop_process "$name" "$(cat "$NOTES/$name.pid")"
            rm -f "$NOTES/$name.pid"
        fi
    done
}

# The number may long belong to somebody else's process: look at its name before ending it.
stop_process() {
    local name=$1 pid=$2 end=$((SECONDS + WAIT_S))
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$name" ]] || return 0
    say "stopping $name, process $pid"
    kill "$pid"
    while [[ -d /proc/$pid ]]; do
        ((SECONDS < end)) || fail "$name, process $pid, does not end"
        sleep 0.1
    done
}

status() {
    local name all=0
    for name in "${DAEMONS[@]}"; do
        if answers "$name"; then echo "$name answers"; else
            echo "$name does not answer"
            all=1
        fi
    done
    return $all
}

case ${1:-} in
    start | stop | status) ;;
    *) fail "say one of: start, stop, status" ;;
esac
if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null ||
        fail "asking this machine's libvirt for guests takes root; become root or install sudo"
    exec sudo "$0" "$@"
fi
"$1"
