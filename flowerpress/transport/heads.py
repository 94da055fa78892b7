"""The head of a message, written short: most of it is words that both sides know.

A codec's header is JSON, some 130 to 900 bytes: beside a pressed update that is a tenth of what is
sent, beside a small model's half. Its deflated form (RFC 1951), with `WORDS` as what came before,
takes a third. A side sends it to one that has named `SHORT_HEADS` among its capabilities, and to
no other: releases before it do not, and get the JSON.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence

from flowerpress.protocol.blob import Data

SHORT_HEADS = "short-heads"
PREFIX = struct.Struct("<I")
SHORT = 2**31  # of the length: a deflated header follows

# What heads are made of, the likeliest last. It is part of the format: other words are another
# capability.
WORDS = (
    b'["error":[0,"configs",[["parameters","diagnostics","float16","bfloat16","float64",[],'
    b'"int64",[],"numpy.ndarray"],["accuracy",["train_accuracy",["eval_loss",["eval_acc",'
    b'["train_loss",["seconds",.weight","float32",[.bias","float32",[.running_mean","float32",['
    b'.running_var","float32",[.num_batches_tracked","int64",[],"numpy.ndarray"],'
    b'["config","configs",[["lr",0.1],["server-round",1]]]],"sizes":[{"b":0}'
    b'{"type":"evaluate","group":"","ttl":3600.0,"records":[{"type":"query","group":"'
    b'"numpy.ndarray"]]],["flowerpress","arrays",[["message","uint8",["model","uint8",['
    b'["metrics","metrics",[["num-examples",["loss",0.'
    b'{"type":"train","group":"","ttl":43199.99,"records":[["arrays","arrays",[["message","uint8",['
    b'],"flowerpress.v1"]]]],"sizes":['
)
_LIST = 2**10  # characters of a list of capabilities
_WINDOW = -15  # bits; raw, without a header and a checksum: gRPC's frames arrive whole
# Bytes that an inflated head may have: these, and so many times its own, and never more.
_SPARE, _TIMES, _MOST = 2**12, 32, 2**16


class HeadError(ValueError):
    """Bytes are no deflated head."""


def names_short_heads(capabilities: str) -> bool:
    """Say whether a JSON list of capabilities has `SHORT_HEADS`; what is no such list has not."""
    try:
        found = json.loads(capabilities[:_LIST] or "[]")
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and SHORT_HEADS in found


def shorten(buffers: Sequence[Data]) -> list[Data]:
    """Return an encoded message with its head deflated, where that makes it shorter.

    Examples
    --------
    >>> head = b'{"type":"train","group":"1","ttl":3600,"records":[],"sizes":[]}'
    >>> (short,) = shorten([PREFIX.pack(len(head)) + head])
    >>> len(head), len(short) - 4, inflate(short[4:], 100) == head
    (63, 16, True)
    """
    head = memoryview(buffers[0])[PREFIX.size :]
    # Fast, and with a small memory: the words are near, and what is left is hardly shorter.
    deflate = zlib.compressobj(1, zlib.DEFLATED, -12, 5, zlib.Z_DEFAULT_STRATEGY, WORDS)
    short = deflate.compress(head) + deflate.flush()
    if len(short) >= len(head) or len(head) > _largest(len(short)):
        return list(buffers)
    return [PREFIX.pack(len(short) | SHORT) + short, *buffers[1:]]


def inflate(data: bytes, limit: int) -> bytes:
    """Return a head that was deflated.

    Raises
    ------
    HeadError
        It is damaged, or would be longer than `limit`, or than a sender makes it.
    """
    limit = min(limit, _largest(len(data)))
    reader = zlib.decompressobj(_WINDOW, zdict=WORDS)
    try:
        head = reader.decompress(data, limit + 1)
    except zlib.error:
        raise HeadError("the short header is damaged") from None
    if len(head) > limit:
        raise HeadError(f"a short header of more than {limit} bytes")
    if not reader.eof or reader.unused_data:
        raise HeadError("the short header is cut, or goes on after its end")
    return head


def _largest(nbytes: int) -> int:
    """Return how long a head may be that takes so many bytes deflated."""
    return min(_SPARE + _TIMES * nbytes, _MOST)
