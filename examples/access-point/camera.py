"""Have a service read number plates, and tell how long it took: `camera.py ADDRESS [COUNT]`.

Draws plates of six digits with noise over them, and posts one after the other, each with a
connection of its own, as a camera that sees a car now and then does.
"""

import http.client
import random
import statistics
import sys
import time

DIGITS = """
.###. ..#.. .###. ##### ...#. ##### ..##. ##### .###. .###.
#...# .##.. #...# ...#. ..##. #.... .#... ....# #...# #...#
#..## ..#.. ....# ..#.. .#.#. ####. #.... ...#. #...# #...#
#.#.# ..#.. ...#. ...#. #..#. ....# ####. ..#.. .###. .####
##..# ..#.. ..#.. ....# ##### ....# #...# .#... #...# ....#
#...# ..#.. .#... #...# ...#. #...# #...# .#... #...# ...#.
.###. .###. ##### .###. ...#. .###. .###. .#... .###. .##..
"""
NOISE = 90  # of 255, up or down, on each pixel
SEED = 7


def main() -> None:
    """Send plates, check the answers, and print what it took."""
    host = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    chance = random.Random(SEED)  # noqa: S311 - pictures, not secrets
    right, took_ms = 0, []
    for _ in range(count):
        number = "".join(chance.choices("0123456789", k=6))
        picture = drawn(number, chance)
        began = time.monotonic()
        right += answer(host, picture) == number
        took_ms.append(1000 * (time.monotonic() - began))
    median_ms = statistics.median(took_ms)
    sys.stdout.write(f"{right} of {count} plates read, median {median_ms:.1f} ms\n")


def answer(host: str, picture: bytes) -> str:
    """Return what the service reads in a picture."""
    connection = http.client.HTTPConnection(host, timeout=5)
    connection.request("POST", "/", body=picture)
    read = connection.getresponse().read().decode()
    connection.close()
    return read


def drawn(number: str, chance: random.Random) -> bytes:
    """Return a picture of a number, with noise, as rows of bytes."""
    rows = [line.split() for line in DIGITS.strip().splitlines()]
    lines = [".".join(row[int(digit)] for digit in number) for row in rows]
    return bytes(
        min(255, max(0, 255 * (pixel == "#") + chance.randint(-NOISE, NOISE)))
        for pixel in "".join(lines)
    )


main()
