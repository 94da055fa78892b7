"""Certificates of the gRPC link: an authority, a server and clients that know each other by it.

Files of a folder, in PEM: `ca.pem` and `ca.key`, `server.pem` and `server.key`, `client-0.pem` and
`client-0.key`, and so on. Keys are on the curve P-256. A host needs `ca.pem` and its own pair; the
authority's key stays where certificates are made.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from flowerpress.transport.denied import DENY_LIST, add_denied, key_digest, read_denied
from flowerpress.transport.issuing import (
    AUTHORITY,
    Authority,
    CertificateError,
    alternative_names,
    issue,
    load_certificate,
    load_key,
    make_authority,
)

__all__ = [
    "SERVER",
    "CertificateError",
    "Credentials",
    "client_name",
    "make_certs",
    "read_certs",
    "revoke_certificate",
]

log = logging.getLogger("flowerpress")
SERVER = "server"
SOON = timedelta(days=14)
"""A certificate that expires within this time is warned of."""


class Credentials(NamedTuple):
    """What one side of a link shows and checks, in PEM."""

    ca: bytes
    cert: bytes
    key: bytes


def client_name(client: int) -> str:
    """Return the name in the certificate of client `client`.

    Examples
    --------
    >>> client_name(3)
    'client-3'
    """
    return f"client-{client}"


def make_certs(
    folder: Path,
    clients: int,
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    days: int = 365,
) -> list[Path]:
    """Make the certificates that `folder` lacks: the authority's, the server's and the clients'.

    What is there and in force is left as it is, so that clients can be added later. A certificate
    is made anew, for the key that is there, where it has expired, or where it is the server's and
    names other hosts; and with a new key where it was revoked.

    Parameters
    ----------
    folder : Path
        Made if it is not there, readable by its owner alone, as all keys are.
    clients : int
        Number of clients: certificates of `client-0` to `client-{clients - 1}`.
    hosts : sequence of str
        Names and addresses by which clients reach the server.
    days : int, default 365
        How long new certificates hold; the authority's holds ten years.

    Returns
    -------
    list of Path
        The files written; empty if nothing was lacking.

    Raises
    ------
    CertificateError
        A file in the folder is damaged or of another authority, or the authority has expired or
        its key is gone.
    ValueError
        A number or a host is out of range.
    """
    if clients < 1 or days < 1:
        raise ValueError(f"expected at least 1 client and 1 day, not {clients} and {days}")
    wanted: dict[str, x509.SubjectAlternativeName | None] = {
        SERVER: alternative_names(tuple(hosts))
    }
    wanted |= {client_name(i): None for i in range(clients)}
    folder = Path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / f"{AUTHORITY}.pem"
    written = [] if file.exists() else make_authority(folder)
    ca = load_certificate(file)
    _check_dates(file, ca, "make all certificates anew, in an empty folder")
    lacking = [name for name, names in wanted.items() if not _stays(folder, name, ca, names)]
    for name in _revoked(folder, wanted):
        (folder / f"{name}.key").unlink(missing_ok=True)  # whoever has it must not get in
        lacking = [*lacking, name] if name not in lacking else lacking
    if lacking:
        authority = Authority(ca, _key_of(folder, AUTHORITY, ca))
        for name in lacking:
            written += issue(folder, name, authority, days, wanted[name])
    return written


def _revoked(folder: Path, names: Iterable[str]) -> list[str]:
    """Return whose certificate in the folder is shut out."""
    denied = read_denied(folder / DENY_LIST)
    files = {name: folder / f"{name}.pem" for name in names}
    return [
        name
        for name, file in files.items()
        if file.exists() and key_digest(load_certificate(file)) in denied
    ]


def revoke_certificate(folder: Path, name: str) -> bool:
    """Shut a client's certificate out, and all others of the same key.

    The server reads the list again while it serves: it refuses the certificate from then on, and
    ends the connection that it has. `make_certs` makes another one, with a new key.

    Parameters
    ----------
    folder : Path
        Where the certificates were made, or the server's folder; needs `{name}.pem`.
    name : str
        `client-0` and so on.

    Returns
    -------
    bool
        Whether it was not revoked already.

    Raises
    ------
    CertificateError
        The certificate is not there, or damaged.
    ValueError
        The name is no client's, or the list is damaged.
    """
    number = name.removeprefix("client-")
    if not (name.startswith("client-") and number.isascii() and number.isdigit()):
        raise ValueError(f"--revoke {name!r:.60}: give the name of a client, such as client-3")
    file = Path(folder) / f"{name}.pem"
    if not file.is_file():
        raise CertificateError(
            f"no file {file}: bring the certificate (not its key) from where it was made, or from "
            "that client's host"
        )
    return add_denied(Path(folder) / DENY_LIST, name, key_digest(load_certificate(file)))


def read_certs(folder: Path, name: str) -> Credentials:
    """Read what gRPC's credentials take: the authority's certificate, `name`'s, and its key.

    Parameters
    ----------
    folder : Path
        A folder with `ca.pem`, `{name}.pem` and `{name}.key`.
    name : str
        `server`, or `client-0` and so on.

    Raises
    ------
    CertificateError
        A file is missing or damaged, a certificate is not in force, or they do not belong
        together; says which, and what to do.
    """
    folder = Path(folder)
    files = [folder / file for file in (f"{AUTHORITY}.pem", f"{name}.pem", f"{name}.key")]
    remedy = _remedy(folder, name)
    for file in files:
        if not file.is_file():
            raise CertificateError(f"no file {file}: {remedy}")
    ca, cert = load_certificate(files[0]), load_certificate(files[1])
    for file, each in zip(files, (ca, cert), strict=False):
        _check_dates(file, each, remedy)
    _check_issuer(files[1], cert, ca)
    _key_of(folder, name, cert)
    return Credentials(*(file.read_bytes() for file in files))


def _remedy(folder: Path, name: str) -> str:
    number = name.removeprefix("client-")
    count = int(number) + 1 if number.isdecimal() else "N"
    return (
        f"make it with `flowerpress certs {folder} --clients {count} --host NAME`, or bring it "
        "from the host on which that was done"
    )


def _stays(
    folder: Path, name: str, ca: x509.Certificate, hosts: x509.SubjectAlternativeName | None
) -> bool:
    """Whether the certificate `name` is there and can stay as it is."""
    file = folder / f"{name}.pem"
    if not file.exists():
        return False
    cert = load_certificate(file)
    _check_issuer(file, cert, ca)
    in_force = datetime.now(UTC) < cert.not_valid_after_utc
    return in_force and (hosts is None or _hosts_of(cert) == set(hosts))


def _hosts_of(cert: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _key_of(folder: Path, name: str, cert: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    """Return the private key of the certificate `name`."""
    file = folder / f"{name}.key"
    if not file.exists():
        raise CertificateError(f"no file {file}: only with it can certificates be signed")
    key = load_key(file)
    if key.public_key() != cert.public_key():
        raise CertificateError(f"{file} is not the key of {file.with_suffix('.pem')}")
    return key


def _check_issuer(file: Path, cert: x509.Certificate, ca: x509.Certificate) -> None:
    try:
        cert.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        authority = file.with_name(f"{AUTHORITY}.pem")
        raise CertificateError(f"{file} was not signed by {authority}") from None


def _check_dates(file: Path, cert: x509.Certificate, remedy: str) -> None:
    now, first, last = datetime.now(UTC), cert.not_valid_before_utc, cert.not_valid_after_utc
    if now >= last:
        raise CertificateError(f"{file} expired on {last:%Y-%m-%d}: {remedy}")
    if now < first:
        raise CertificateError(
            f"{file} holds from {first:%Y-%m-%d} on: this machine's clock says {now:%Y-%m-%d}"
        )
    if last - now < SOON:
        log.warning("%s expires on %s", file, f"{last:%Y-%m-%d}")
