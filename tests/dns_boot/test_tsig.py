"""Signatures: who has the key, now, and for the very message; everything else is told apart."""

import base64
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dns_boot import tsig
from dns_boot.names import FormatError, Malformed, Query, name_of, parse_query, tsig_in
from orchestrator.errors import EdgewakeError
from orchestrator.model import TsigKey

NOW = 1_700_000_000.0
SECRET = bytes(range(32))
FUZZ = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def key(name: str = "copy", algorithm: str = "hmac-sha256", secret: bytes = SECRET) -> tsig.Key:
    return tsig.Key(name_of(name), name_of(algorithm), secret)


def signed(lab: SimpleNamespace, by: tsig.Key, now: float = NOW, **query: object) -> bytes:
    return tsig.sign_request(lab.query(**query), by, now)[0]


def checked(packet: bytes, *keys: tsig.Key, now: float = NOW) -> tsig.Signer:
    query = parse_query(packet)
    assert isinstance(query, Query)
    assert query.tsig_at
    return tsig.check(packet, query.tsig_at, {each.name: each for each in keys}, now)


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "hmac-sha512"])
@pytest.mark.parametrize("edns", [None, 1232])
def test_a_request_and_its_reply_are_good(
    lab: SimpleNamespace, algorithm: str, edns: int | None
) -> None:
    ours = key(algorithm=algorithm)
    packet, mac = tsig.sign_request(lab.query(edns=edns), ours, NOW)
    signer = checked(packet, ours)
    assert signer.error == 0
    reply = lab.query(flags=0x8500, edns=edns)
    answer = signer.sign(reply, NOW + 1)
    assert len(answer) == len(reply) + signer.size
    at = tsig_in(answer)
    assert tsig.check_reply(answer, at, ours, mac, NOW + 2)
    assert not tsig.check_reply(answer, at, ours, mac[:-1] + b"x", NOW + 2)
    assert not tsig.check_reply(answer, at, key(secret=b"x" * 32), mac, NOW + 2)
    assert not tsig.check_reply(answer, at, ours, mac, NOW + 400)
    assert not tsig.check_reply(answer[:2] + b"\x80" + answer[3:], at, ours, mac, NOW + 2)


@pytest.mark.parametrize(
    ("by", "at", "error", "is_signed"),
    [
        (key(), 0, 0, True),
        (key(), 299, 0, True),
        (key(), -299, 0, True),
        (key(), 301, tsig.BADTIME, True),
        (key(), -301, tsig.BADTIME, True),
        (key("other"), 0, tsig.BADKEY, False),
        (key(algorithm="hmac-sha512"), 0, tsig.BADKEY, False),
        (key(secret=b"x" * 32), 0, tsig.BADSIG, False),
        (key(secret=b"x" * 32), 999, tsig.BADSIG, False),
    ],
)
def test_what_is_wrong_is_said_in_the_order_of_the_rules(
    lab: SimpleNamespace, by: tsig.Key, at: float, error: int, is_signed: bool
) -> None:
    packet, mac = tsig.sign_request(lab.query(), by, NOW + at)
    signer = checked(packet, key())
    assert signer.error == error
    reply = lab.query(flags=0x8509)
    answer = signer.sign(reply, NOW)
    assert len(answer) == len(reply) + signer.size
    said = tsig.read(answer, tsig_in(answer))
    assert (said.error, bool(said.mac), said.key) == (error, is_signed, by.name)
    if error == tsig.BADTIME:
        assert int.from_bytes(said.other, "big") == NOW
        assert said.time_s == NOW + at
        assert tsig.check_reply(answer, tsig_in(answer), key(), mac, NOW + at)


def test_a_shorter_signature_is_a_wrong_one(lab: SimpleNamespace) -> None:
    packet = signed(lab, key())
    at = tsig_in(packet)
    said = tsig.read(packet, at)
    short = packet.replace(b"\0\x20" + said.mac, b"\0\x10" + said.mac[:16])
    length = len(packet) - packet.index(b"\x0bhmac-sha256") - 16
    start = packet.index(b"\x0bhmac-sha256") - 2
    short = short[:start] + length.to_bytes(2, "big") + short[start + 2 :]
    assert checked(short, key()).error == tsig.BADSIG


def test_a_great_fudge_is_cut(lab: SimpleNamespace) -> None:
    packet = signed(lab, key(), NOW - 400)
    said = tsig.read(packet, tsig_in(packet))
    assert said.fudge_s == tsig.FUDGE_S
    # A client that signs a fudge of 65535 s is still held to ours: the MAC covers it, so sign anew.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tsig, "FUDGE_S", 65_535)
        packet = signed(lab, key(), NOW - 400)
    assert checked(packet, key()).error == tsig.BADTIME


@given(place=st.integers(0, 200), byte=st.integers(1, 255))
@FUZZ
def test_no_changed_byte_is_taken_for_the_original(
    lab: SimpleNamespace, place: int, byte: int
) -> None:
    packet = bytearray(signed(lab, key(), edns=1232))
    place %= len(packet)
    packet[place] ^= byte
    query = parse_query(bytes(packet))
    if isinstance(query, Query) and query.tsig_at:
        try:
            signer = tsig.check(bytes(packet), query.tsig_at, {key().name: key()}, NOW)
        except FormatError:
            return
        # What may change is the header's id (the original one is signed), and letter case.
        same = place < 2 or bytes(packet).lower() == signed(lab, key(), edns=1232).lower()
        assert signer.error or same


@given(st.binary(max_size=120))
@FUZZ
def test_any_bytes_are_a_signature_or_an_error(lab: SimpleNamespace, data: bytes) -> None:
    packet = lab.query() + data
    try:
        tsig.read(packet, len(lab.query()))
        tsig_in(packet)
    except FormatError:
        return
    assert data[-1:] is not None


@pytest.mark.parametrize("where", ["twice", "before OPT", "in answers"])
def test_a_signature_has_one_place(lab: SimpleNamespace, where: str) -> None:
    packet = signed(lab, key())
    record = packet[tsig_in(packet) :]
    plain = lab.query()
    counts = {"twice": (0, 2), "before OPT": (0, 2), "in answers": (1, 0)}[where]
    tail = {"twice": record * 2, "before OPT": record + b"\0\0\x29\4\xd0" + bytes(6)}
    odd = (
        plain[:6]
        + counts[0].to_bytes(2, "big")
        + plain[8:10]
        + counts[1].to_bytes(2, "big")
        + plain[12:]
        + tail.get(where, record)
    )
    assert parse_query(odd) == Malformed(0x1234, 0x0100, 1)


# --- files ------------------------------------------------------------------------------------


def write(folder: Path, text: str, mode: int = 0o600) -> TsigKey:
    file = folder / "copy.key"
    file.write_text(text)
    file.chmod(mode)
    return TsigKey("copy", "hmac-sha256", file)


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    wanted = write(tmp_path, base64.encodebytes(SECRET).decode())
    assert tsig.load_keys([wanted]) == {(b"copy",): key()}


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (base64.b64encode(SECRET).decode(), 0o640, "others than its owner may read"),
        (base64.b64encode(SECRET).decode(), 0o604, "chmod 600"),
        ("not base64!", 0o600, "is not base64"),
        ("c2hvcnQ=", 0o600, "has 5 bytes"),
        ("", 0o600, "has 0 bytes"),
    ],
)
def test_a_secret_that_is_none_or_no_secret_is_refused(
    tmp_path: Path, text: str, mode: int, words: str
) -> None:
    with pytest.raises(EdgewakeError, match=words) as caught:
        tsig.load_keys([write(tmp_path, text, mode)])
    assert "copy.key" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgewakeError, match=r"gone\.key cannot be read"):
        tsig.load_keys([TsigKey("copy", "hmac-sha256", tmp_path / "gone.key")])
