"""Why a server cannot be reached: what gRPC says of it, and what a person can do."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from flowerpress.protocol import printable
from flowerpress.transport.address import Address

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # in gRPC's order
_LONGEST = 200  # characters of gRPC's words
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
_NO_REASON = re.compile("socket closed|connection reset|broken pipe", re.IGNORECASE)


class Trouble(NamedTuple):
    """Why a connection did not come about.

    Parameters
    ----------
    reason : str
        In gRPC's words, with the proxy where there is one.
    hint : str
        What to look at; empty where the reason says it.
    lasting : bool
        Whether trying again cannot help: somebody has to change something.
    """

    reason: str
    hint: str = ""
    lasting: bool = False


def explain(details: str, server: Address, *, secure: bool, proxy: str = "") -> Trouble:
    """Return what a failed connection means.

    Parameters
    ----------
    details : str
        What gRPC says.
    secure : bool
        Whether certificates were shown.
    proxy : str
        What `proxy_of` says.

    Examples
    --------
    >>> explain("Peer name h is not in peer certificate", Address("h", 9400), secure=True).hint
    'the certificate of h:9400 names other hosts: make it with `flowerpress certs DIR --host h`'
    """
    reason = printable(details.rpartition("last error: ")[2])[:_LONGEST]
    reason = f"{reason} ({proxy})" if proxy else reason
    if "certificate has expired" in details:
        return Trouble(reason, f"the certificate of {server} has expired: {_REMAKE}", lasting=True)
    if "CERTIFICATE_VERIFY_FAILED" in details:
        hint = (
            f"{server} shows a certificate of another authority than ca.pem: bring ca.pem from "
            "where the server's certificate was made, or see whether that is the right server"
        )
        return Trouble(reason, hint, lasting=True)
    if "Hostname Verification" in details or "not in peer certificate" in details:
        hint = (
            f"the certificate of {server} names other hosts: make it with "
            f"`flowerpress certs DIR --host {server.host}`"
        )
        return Trouble(reason, hint, lasting=True)
    if "WRONG_VERSION_NUMBER" in details:
        hint = f"{server} does not speak TLS: was the server started with --insecure?"
        return Trouble(reason, hint, lasting=True)
    if _NO_REASON.search(details):
        return Trouble(reason, _refused_hint(secure=secure))
    return Trouble(reason)


_REMAKE = "`flowerpress certs DIR`, where it was made, makes another"


def _refused_hint(*, secure: bool) -> str:
    if secure:
        return (
            "the server may not know the authority of this client's certificate, or have all the "
            "connections it takes"
        )
    return "the server may want certificates (--certs), or have all the connections it takes"


def proxy_of(server: Address, environment: Mapping[str, str] = os.environ) -> str:
    """Return which proxy of the environment gRPC goes through, in words; empty for none.

    Examples
    --------
    >>> proxy_of(Address("far.example", 9400), {"https_proxy": "http://me:secret@p:3128"})
    'through the proxy p:3128 of https_proxy; no_proxy=far.example goes round it'
    """
    if server.is_loopback:
        return ""
    name = next((name for name in _PROXIES if environment.get(name)), "")
    exceptions = next((environment[n] for n in _EXCEPTIONS if environment.get(n)), "")
    if not name or any(_covers(each.strip(), server.host) for each in exceptions.split(",")):
        return ""
    value = environment[name]
    place = urlsplit(value if "//" in value else f"//{value}").netloc.rpartition("@")[2]
    return f"through the proxy {place} of {name}; no_proxy={server.host} goes round it"


def _covers(exception: str, host: str) -> bool:
    """Whether an entry of no_proxy is about a host: a suffix of names, or a block of addresses."""
    if not exception:
        return False
    if host.lower().endswith(exception.lower()):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(exception, strict=False)
    except ValueError:
        return False
