"""``HOST:PORT`` as it is typed, checked: gRPC takes almost any text, and some amiss."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_LOOPBACK = ("localhost", "localhost.localdomain", "ip6-localhost")


class Address(NamedTuple):
    """Where to listen, or to connect to.

    Parameters
    ----------
    host : str
        A name, an IPv4 address, or an IPv6 address without brackets.
    port : int
        0 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine's own, which no proxy can reach."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            name = self.host.lower().rstrip(".")
            return name in _LOOPBACK or name.endswith(".localhost")


def parse_address(text: str, option: str, *, listens: bool = False) -> Address:
    """Read ``HOST:PORT``.

    Parameters
    ----------
    text : str
        A name or an IPv4 address, or an IPv6 address in brackets; a colon; a port.
    option : str
        What to call it in an error.
    listens : bool
        Whether it may have port 0, any that is free.

    Raises
    ------
    ValueError
        It is none: says what is wrong, and an example of what is right.

    Examples
    --------
    >>> parse_address("[::1]:9400", "--bind")
    Address(host='::1', port=9400)
    >>> str(parse_address("server.example:9400", "--server"))
    'server.example:9400'
    >>> parse_address("::1:9400", "--bind")
    Traceback (most recent call last):
    ...
    ValueError: --bind '::1:9400': write an IPv6 address in brackets, such as [::1]:9400
    """
    host, colon, port = text.rpartition(":")
    least = 0 if listens else 1
    if wrong := _what_is_wrong(text, host if colon else text, listens=listens):
        pass
    elif not (port.isascii() and port.isdigit() and least <= int(port) <= 65_535):
        wrong = f"the port is a whole number from {least} to 65535, not {port!r:.40}"
    if wrong:
        raise ValueError(f"{option} {text!r:.100}: {wrong}")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


def _what_is_wrong(text: str, host: str, *, listens: bool) -> str:
    """Return what is wrong with the host, or with how the port is put; empty if nothing is."""
    if bare := next((each for each in (host, text) if _is_ipv6(each)), ""):
        rest = text.removeprefix(bare) or ":9400"
        return f"write an IPv6 address in brackets, such as [{bare}]{rest}"
    example = "0.0.0.0" if listens else "server.example"  # noqa: S104  (a text)
    if not host or text.isdecimal():
        port = text.lstrip(":") or "9400"
        return f"the host is missing: write HOST:PORT, such as {example}:{port}"
    if ":" not in text or text.endswith("]"):
        return f"the port is missing: write HOST:PORT, such as {text}:9400"
    if host[0] == "[" or host[-1] == "]":
        inside = host[1:-1] if host[0] == "[" and host[-1] == "]" else ""
        return "" if _is_ipv6(inside) else f"{host} is not an IPv6 address in brackets"
    if re.fullmatch(r"[0-9.]+", host):
        purpose = "listen on" if listens else "connect to"
        return "" if _is_ipv4(host) else f"{host} is not an IPv4 address to {purpose}"
    return "" if _NAME.fullmatch(host) and len(host) < 254 else f"{host!r} is not a host name"


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
