"""Show in which order connections come by services: `python3 hops.py SERVICE ... -- COMMAND ...`.

Captures, with tcpdump, the first packet of each TCP connection (SYN) as it comes into the network
namespace of each service, while a command runs. For services that are processes (netns:///), and
root. Which addresses services have is asked of edgewake.
"""

import json
import re
import subprocess
import sys
import time

OPENING = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn"
CAPTURE = ["tcpdump", "-l", "-n", "-tt", "-q", "-Q", "in", "-i", "any", OPENING]
PACKET = re.compile(r"^(\d+\.\d+) .*IP6? (\S+)\.\d+ > (\S+)\.(\d+):", re.M)


def main() -> None:
    """Capture, run the command, and print what was seen."""
    split = sys.argv.index("--")
    names, command = sys.argv[1:split], sys.argv[split + 1 :]
    addresses = addresses_of(names)
    captures = {name: capture(namespace_with(address)) for name, address in addresses.items()}
    subprocess.run(command, check=False)
    time.sleep(0.3)  # for tcpdump, which reads in blocks
    seen = []
    for name, process in captures.items():
        process.terminate()
        for at, origin, target, port in PACKET.findall(process.communicate()[0]):
            seen.append((float(at), name, origin, target, port))
    for at, name, origin, target, port in sorted(seen):
        after_ms = 1000 * (at - min(seen)[0])
        sys.stdout.write(f"{after_ms:8.2f} ms  {name:10} {origin} > {target} port {port}\n")


def addresses_of(names: list[str]) -> dict[str, str]:
    """Return the IPv4 address of each service, which must be awake."""
    told = subprocess.run(["edgewake", "status", "--json"], stdout=subprocess.PIPE, check=True)
    services = {each["name"]: each for each in json.loads(told.stdout)["services"]}
    return {name: services[name]["instances"][0]["address"] for name in names}


def namespace_with(address: str) -> str:
    """Return the namespace that has an address."""
    told = subprocess.run(["ip", "--json", "netns"], stdout=subprocess.PIPE, check=True)
    for each in json.loads(told.stdout):
        command = ["ip", "-n", each["name"], "addr", "show", "to", address]
        found = subprocess.run(command, capture_output=True, check=False)
        if found.stdout:
            return str(each["name"])
    sys.exit(f"no namespace has {address}")


def capture(namespace: str) -> "subprocess.Popen[str]":
    """Start tcpdump in a namespace, and return it when it listens."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, *CAPTURE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr or ():
        if "listening" in line:
            return process
    sys.exit("tcpdump does not run: apt install tcpdump")


main()
