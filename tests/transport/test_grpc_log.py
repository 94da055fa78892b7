"""gRPC's lines in the log: as many as can be read, and a count of the others."""

from __future__ import annotations

import re
import subprocess
import sys

SCRIPT = """
import logging, os, sys
from flowerpress.transport.grpc_log import limited_stderr

line = b"I1128 19:33:09.289386   29827 ssl_transport_security.cc:2563] Handshake failed %d\\n"
os.write(2, b"before\\n")
with limited_stderr():
    logging.basicConfig()
    for number in range(500):
        os.write(2, line % number)
        if number % 100 == 0:
            sys.stderr.write(f"python {number}\\n")
            logging.warning("a warning %d", number)
    os.write(2, b"a library's own line, long: " + 5000 * b"x" + b"\\n")
    import time
    time.sleep(1.2)
    os.write(2, line % 1000)
os.write(2, b"after\\n")
print("\\u00e4", file=sys.stderr)
"""


def test_grpc_is_limited_and_nobody_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stderr.splitlines()
    assert lines[0] == "before"
    assert lines[-2:] == ["after", "\u00e4"]
    assert [line for line in lines if line.startswith("python")] == [
        f"python {number}" for number in range(0, 500, 100)
    ]
    assert sum("a warning" in line for line in lines) == 5
    assert f"a library's own line, long: {5000 * 'x'}" in lines
    handshakes = [line for line in lines if "Handshake failed" in line]
    assert 10 <= len(handshakes) <= 14
    left_out = re.search(r"failed 1000 \(and (\d+) lines like it that are left out\)", done.stderr)
    assert left_out is not None
    assert int(left_out[1]) + len(handshakes) + sum(counts(handshakes[:-1])) == 501


def counts(lines: list[str]) -> list[int]:
    """Return how many lines each of these says it stands for."""
    return [int(found[1]) for line in lines if (found := re.search(r"\(and (\d+) lines", line))]
