"""HTTP/2 by hand: connections that take nothing, which gRPC's own client cannot be made to be."""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
from pathlib import Path
from typing import Any

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_HEADERS, ACK = 4, 1
WINDOW = 4  # SETTINGS_INITIAL_WINDOW_SIZE


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(window: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HI", WINDOW, window))


def call(stream: int, path: str, message: bytes = b"") -> bytes:
    """Begin a call, with a first message if there is one."""
    fields = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost"}
    fields |= {"te": "trailers", "content-type": "application/grpc"}
    block = b"".join(
        b"\x00" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode()
        for k, v in fields.items()
    )
    begun = frame(HEADERS, END_HEADERS, stream, block)
    if message:
        begun += frame(DATA, 0, stream, struct.pack(">BI", 0, len(message)) + message)
    return begun


def connect(port: int, certs: Any = None, window: int = 0) -> socket.socket:
    """Connect, and say that every stream has a window of so many bytes."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    if certs is None:
        link: socket.socket = plain
    else:
        context = ssl.create_default_context(cadata=certs.ca.decode())
        context.set_alpn_protocols(["h2"])
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("cert", "key")]
            for file, data in zip(files, (certs.cert, certs.key), strict=True):
                file.write_bytes(data)
            context.load_cert_chain(*files)
        link = context.wrap_socket(plain, server_hostname="localhost")
    link.sendall(PREFACE + settings(window) + frame(SETTINGS, ACK, 0))
    return link
