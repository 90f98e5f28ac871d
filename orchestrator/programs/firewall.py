"""A firewall in a router, for as long as this runs: nftables rules in a table of their own.

    firewall TABLE RULES EVERY_S    prints the rules with their counters every so many seconds

The table belongs to the socket of an nft that we hold (nft(8), flags owner): when it ends, however
it does, the kernel removes the table, and traffic flows as before. Takes CAP_NET_ADMIN.
"""

import subprocess
import sys
import time

PATIENCE_S = 10.0


def main(table: str, rules: str, every_s: str) -> int:
    """Put the rules in place, and print them until we are ended; 1 if that cannot be."""
    text = f"table inet {table} {{ flags owner; {rules} }}\n"
    checked = subprocess.run(["nft", "-c", "-f", "-"], input=text, text=True, check=False)
    if checked.returncode:
        return 1
    with subprocess.Popen(
        ["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as holder:
        if holder.stdin is None:
            return 1
        holder.stdin.write(text)
        holder.stdin.flush()
        if not _is_there(table):
            sys.stderr.write("firewall: the rules are not in place\n")
            return 1
        while holder.poll() is None:
            _show(table)
            time.sleep(float(every_s))
    sys.stderr.write("firewall: nft has ended, and the rules with it\n")
    return 1


def _is_there(table: str) -> bool:
    end = time.monotonic() + PATIENCE_S
    command = ["nft", "list", "table", "inet", table]
    while time.monotonic() < end:
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return True
        time.sleep(0.01)
    return False


def _show(table: str) -> None:
    sys.stdout.flush()
    subprocess.run(["nft", "list", "table", "inet", table], check=False)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
