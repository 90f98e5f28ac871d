"""EDNS Client Subnet: what RFC 7871 lets a resolver say, and nothing else."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dns_boot.names import FormatError
from dns_boot.subnet import parse


@pytest.mark.parametrize(
    ("data", "network"),
    [
        ("00011800c00002", "192.0.2.0/24"),
        ("00012000c0000201", "192.0.2.1/32"),
        ("00010100" + "80", "128.0.0.0/1"),
        ("0002380020010db8000100", "2001:db8:1::/56"),
        ("00010000", None),
        ("00020000", None),
        ("00000000", None),
    ],
)
def test_what_may_be_said(data: str, network: str | None) -> None:
    subnet = parse(bytes.fromhex(data))
    assert subnet.network == (ip_network(network) if network else None)
    assert subnet.option(0).hex() == data
    assert subnet.option(7)[3] == 7


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("", "head"),
        ("000118", "head"),
        ("00031800c00002", "kind"),
        ("00012100c000020100", "kind"),
        ("00028100" + "00" * 17, "kind"),
        ("00000800c0", "kind"),
        ("00011818c00002", "scope"),
        ("00011800c000", "bytes"),
        ("00011800c0000200", "bytes"),
        ("00011700c00003", "beyond"),
        ("0001010081", "beyond"),
    ],
)
def test_what_may_not(data: str, what: str) -> None:
    with pytest.raises(FormatError, match=what):
        parse(bytes.fromhex(data))


@given(st.binary(max_size=24))
def test_any_bytes_are_a_subnet_that_comes_back_or_an_error(data: bytes) -> None:
    try:
        subnet = parse(data)
    except FormatError:
        return
    assert subnet.option(0) == data
    assert (subnet.network is None) == (subnet.source == 0)
