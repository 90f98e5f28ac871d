"""Run nine sensors, each a process in its mote's network namespace: `python3 sensors.py ADDRESS`.

Each sends a reading by UDP each half second: who it is, the number of the heartbeat, and a
temperature that wanders. Nobody tells a sensor whether the collector is awake, as in real motes.
"""

import json
import random
import socket
import subprocess
import sys
import time

LAB = "nine-processes"
MOTES = 9
BEATS = 8
EVERY_S = 0.5
PORT = 5683


def main() -> None:
    """Start all sensors and wait for them, or be one of them."""
    address, *mote = sys.argv[1:]
    if mote:
        sense(address, mote[0])
        return
    sensors = [started(address, f"mote{number}") for number in range(1, MOTES + 1)]
    failed = [sensor for sensor in sensors if sensor.wait()]
    sys.stdout.write(f"{len(sensors) - len(failed)} sensors sent {BEATS} readings each\n")
    sys.exit(1 if failed else 0)


def started(address: str, mote: str) -> "subprocess.Popen[bytes]":
    """Start a sensor where its mote is."""
    inside = ["ip", "netns", "exec", f"ew-{LAB}-{mote}"]
    return subprocess.Popen([*inside, sys.executable, __file__, address, mote])


def sense(address: str, mote: str) -> None:
    """Be one sensor."""
    chance = random.Random(mote)  # noqa: S311 - weather, not secrets
    temperature = chance.uniform(17, 23)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        for beat in range(BEATS):
            temperature += chance.uniform(-0.3, 0.3)
            reading = {"mote": mote, "beat": beat, "temperature": round(temperature, 2)}
            try:
                port.sendto(json.dumps(reading).encode(), (address, PORT))
            except OSError as error:  # such as that the host could not be reached a moment ago
                sys.stderr.write(f"{mote}: beat {beat}: {error.strerror}\n")
            time.sleep(EVERY_S)


main()
