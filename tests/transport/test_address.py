"""Addresses as they are typed: read as they are meant, or refused in one line that says how."""

from __future__ import annotations

import pytest

from flowerpress.transport.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9400", "127.0.0.1", 9400),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::]:65535", "::", 65535),
        ("[::1]:1", "::1", 1),
        ("[fe80::1%eth0]:9400", "fe80::1%eth0", 9400),
        ("localhost:9400", "localhost", 9400),
        ("server:9400", "server", 9400),
        ("a-b.c_d.example.:9400", "a-b.c_d.example.", 9400),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int) -> None:
    address = parse_address(text, "--bind", listens=True)
    assert address == Address(host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("127.0.0.1", "the port is missing: write HOST:PORT, such as 127.0.0.1:9400"),
        ("localhost", "the port is missing"),
        ("[::1]", "the port is missing: write HOST:PORT, such as [::1]:9400"),
        ("127.0.0.1:", "the port is a whole number from 0 to 65535, not ''"),
        ("h:80000", "the port is a whole number from 0 to 65535, not '80000'"),
        ("h:-1", "the port is"),
        ("h:9 400", "the port is"),
        ("h:0x50", "the port is"),
        ("h:\u0663", "the port is"),
        ("::1:9400", "in brackets, such as [::1]:9400"),
        ("::1", "in brackets, such as [::1]:9400"),
        ("fe80::1", "in brackets, such as [fe80::1]:9400"),
        ("9400", "the host is missing: write HOST:PORT, such as 0.0.0.0:9400"),
        (":9400", "the host is missing: write HOST:PORT, such as 0.0.0.0:9400"),
        ("", "the host is missing"),
        ("1.2.3:4", "1.2.3 is not an IPv4 address"),
        ("1.2.3.400:4", "1.2.3.400 is not an IPv4 address"),
        ("[1.2.3.4]:4", "is not an IPv6 address in brackets"),
        ("[::1:4", "is not an IPv6 address in brackets"),
        ("http://h:9400", "'http://h' is not a host name"),
        ("unix:/run/socket", "the port is"),
        ("*:9400", "'*' is not a host name"),
        ("a b:9400", "'a b' is not a host name"),
        ("a..b:9400", "'a..b' is not a host name"),
        ("-a:9400", "'-a' is not a host name"),
        ("h:1:2", "'h:1' is not a host name"),
    ],
)
def test_what_is_no_address_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as wrong:  # noqa: PT011  (what it says is looked at below)
        parse_address(text, "--bind", listens=True)
    assert str(wrong.value).startswith(f"--bind {text!r}: ")
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_nobody_connects_to_port_0() -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        parse_address("h:0", "--server")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("me.localhost", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("server", False),
    ],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback == loopback
