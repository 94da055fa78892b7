"""How a certificate of the link, and its key, are made, written and read: the parts of `certs`."""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from flowerpress.protocol.files import write_atomically

AUTHORITY = "ca"
AUTHORITY_DAYS = 3650
_SKEW = timedelta(days=1)  # certificates hold from yesterday on: clocks of devices are late
_HOST = re.compile(r"(\*\.)?(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", re.ASCII)


class CertificateError(ValueError):
    """A certificate or a key is missing, expired, or does not go with the others."""


class Authority(NamedTuple):
    """Who signs."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def load_certificate(file: Path) -> x509.Certificate:
    """Read a certificate; raises `CertificateError` where there is none in the file."""
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except ValueError as error:
        raise CertificateError(f"{file} is not a certificate in PEM: {error}") from None


def load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key; raises `CertificateError` where there is none in the file."""
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{file} is not a private key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{file} is not a key on an elliptic curve")
    return key


def alternative_names(hosts: tuple[str, ...]) -> x509.SubjectAlternativeName:
    """Return hosts as a server's certificate lists them; raises `ValueError` for what is none.

    Examples
    --------
    >>> list(alternative_names(("10.0.0.1", "fl.example.org")))
    [<IPAddress(value=10.0.0.1)>, <DNSName(value='fl.example.org')>]
    """
    if not hosts:
        raise ValueError("the server's certificate needs at least one host name or address")
    return x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host) or len(host) > 253:
            raise ValueError(f"{host!r} is not a host name or an address (give no port)") from None
        return x509.DNSName(host)


def make_authority(folder: Path) -> list[Path]:
    """Make the authority's certificate; return the files written."""
    key, files = _own_key(folder, AUTHORITY)
    name = _subject("flowerpress authority")
    end = datetime.now(UTC) + timedelta(days=AUTHORITY_DAYS)
    cert = (
        _builder(name, name, key, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return [*files, _save_certificate(folder, AUTHORITY, cert)]


def issue(
    folder: Path,
    name: str,
    authority: Authority,
    days: int,
    hosts: x509.SubjectAlternativeName | None,
) -> list[Path]:
    """Make a certificate, a server's where there are `hosts`, else a client's.

    It serves that one purpose, so that no client can pass for the server.

    Returns
    -------
    list of Path
        The files written.
    """
    key, files = _own_key(folder, name)
    # None outlives its authority: it would be refused without a reason that anyone could see.
    end = min(
        datetime.now(UTC) + timedelta(days=min(days, AUTHORITY_DAYS)),
        authority.cert.not_valid_after_utc,
    )
    builder = _builder(_subject(name), authority.cert.subject, key, end)
    builder = _for_purpose(
        builder, ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    )
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(signer, critical=False)
    if hosts is not None:
        builder = builder.add_extension(hosts, critical=False)
    cert = builder.sign(authority.key, hashes.SHA256())
    return [*files, _save_certificate(folder, name, cert)]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, end: datetime
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _for_purpose(
    builder: x509.CertificateBuilder, purpose: ObjectIdentifier
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _own_key(folder: Path, name: str) -> tuple[ec.EllipticCurvePrivateKey, list[Path]]:
    """Return the key `name`, and the file written: none where it was there already."""
    file = folder / f"{name}.key"
    if file.exists():
        return load_key(file), []
    key = ec.generate_private_key(ec.SECP256R1())
    data = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_atomically(file, data)  # readable by its owner alone
    return key, [file]


def _save_certificate(folder: Path, name: str, cert: x509.Certificate) -> Path:
    file = folder / f"{name}.pem"
    write_atomically(file, cert.public_bytes(serialization.Encoding.PEM))
    file.chmod(0o644)
    return file
