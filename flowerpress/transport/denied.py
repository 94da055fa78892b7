"""Certificates that are shut out: a file that the server reads again while it serves.

`revoked.txt` has a line for each: the SHA-256 of the public key, the name in the certificate, and
the day. A certificate that is made anew has another key, and comes in.
"""

from __future__ import annotations

import hashlib
import logging
import re
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flowerpress.protocol.files import write_atomically

log = logging.getLogger("flowerpress")
DENY_LIST = "revoked.txt"
_LINE = re.compile(r"([0-9a-f]{64})\s+(\S+)(\s.*)?", re.ASCII)


def key_digest(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's public key, which stays when it is made anew for it."""
    public = certificate.public_key()
    data = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(data).hexdigest()


def read_denied(file: Path) -> dict[str, str]:
    """Return the names of the certificates that are shut out, by their keys' digests.

    Empty where there is no such file.

    Raises
    ------
    ValueError
        A line is none: says which.
    OSError
        The file cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no list of revoked certificates: it is not text") from None
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            parts = _LINE.fullmatch(line.strip())
            if parts is None:
                raise ValueError(
                    f"{file}, line {number}: expected the SHA-256 of a key and a name, not "
                    f"{line!r:.60}: write it with `flowerpress certs DIR --revoke client-I`"
                )
            found[parts[1]] = parts[2]
    return found


def add_denied(file: Path, name: str, digest: str) -> bool:
    """Add a certificate to the list; returns whether it was not there.

    Raises `ValueError` and `OSError` as `read_denied` does.
    """
    if digest in read_denied(file):
        return False
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    line = f"{digest} {name} {datetime.now(UTC):%Y-%m-%d}\n"
    write_atomically(file, (before + line).encode())
    file.chmod(0o644)  # no secret: a server of another user reads it
    return True


class DenyList:
    """The list as it is now.

    Parameters
    ----------
    file : Path
        Need not be there.

    Raises
    ------
    ValueError, OSError
        As `read_denied`. Later, while the server serves, a file that cannot be read is logged, and
        what was read last holds.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._seen = file, _stamp(file)
        self._denied = read_denied(file)

    def __contains__(self, digest: str) -> bool:
        return digest in self._denied

    def look(self) -> bool:
        """Read the file again where it has changed; returns whether it says something else now."""
        stamp = _stamp(self._file)
        if stamp == self._seen:
            return False
        self._seen, before = stamp, self._denied
        try:
            self._denied = read_denied(self._file)
        except (ValueError, OSError) as error:
            log.warning("%s; the list read before holds", error)
            return False
        if self._denied != before:
            log.info("%d certificates are revoked, says %s", len(self._denied), self._file)
        return self._denied != before


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file: when it was written, how long it is, and which it is."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
