"""Numpy's kernels until numba's are compiled: nothing waits, nothing changes, nothing is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flowerpress.compressors import Draw, add_to, decompress, make_compressor, norm
from flowerpress.compressors.kernels import choice, switching
from flowerpress.compressors.kernels.numba import background, disk_cache, jit, signatures
from flowerpress.compressors.kernels.numba import common as numba_kernels
from flowerpress.compressors.kernels.numpy import common as numpy_kernels
from flowerpress.compressors.kernels.switching import (
    Agreement,
    NotCompiledError,
    switched,
    without_waiting,
)
from flowerpress.compressors.testing.conformance import forced_kernels
from tests.compressors.table import COMPRESSORS

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def agreed() -> Agreement:
    found = Agreement(lambda: True, lambda: None)
    assert found.require()
    return found


def module(**functions: object) -> ModuleType:
    found = ModuleType("twin")
    for name, function in functions.items():
        function.__module__, function.__name__ = "twin", name
        setattr(found, name, function)
    return found


# --- what a call gives ---------------------------------------------------------------------------


@pytest.mark.parametrize("spec", COMPRESSORS)
def test_bytes_do_not_depend_on_when_kernels_change(spec, monkeypatch):
    """Each call takes numpy's or numba's kernel by the toss of a coin."""
    with forced_kernels("numpy"):
        want = all_numbers(spec)
    coin = random.Random(spec)

    def tossed(plain, compiled, agreement):
        def kernel(*arguments):
            return (plain if coin.random() < 0.5 else compiled)(*arguments)

        return kernel

    monkeypatch.setattr(switching, "_switch", tossed)
    monkeypatch.setattr(choice, "_load", lambda wanted: agreed())
    monkeypatch.setattr(choice, "_file", choice._file.__wrapped__)
    monkeypatch.delenv("FLOWERPRESS_KERNELS", raising=False)
    try:
        for _ in range(3):
            choice.kernels.cache_clear()
            assert all_numbers(spec) == want
    finally:
        choice.kernels.cache_clear()


def all_numbers(spec):
    """Return packets, what they decode to, sums, and norms, of some vectors."""
    found = []
    for dim, dtype in ((3000, np.float32), (1500, np.float64)):
        x = (np.random.default_rng(dim).standard_normal(dim) * 3).astype(dtype)
        packet = make_compressor(spec).bind((dim,)).compress(x, Draw(seed=5, rank=1, cohort=3))
        out = np.full(dim, 0.1, dtype=np.float32)
        add_to(packet.data, out, 0.7)
        found += [packet.data, out.tobytes(), decompress(packet.data).tobytes(), norm(packet.data)]
    return found


def test_a_missing_kernel_is_looked_for_again_later(monkeypatch):
    now, there = [100.0], [False]
    monkeypatch.setattr(switching.time, "monotonic", lambda: now[0])
    looked = []

    def compiled(x):
        looked.append(now[0])
        assert not switching.waits()
        if not there[0]:
            raise NotCompiledError
        return "compiled"

    twin = switched(module(f=lambda x: "plain"), module(f=compiled), agreed())
    for _ in range(100):
        assert twin.f(1) == "plain"
        now[0] += 0.05
    assert len(looked) == 6  # after 0.1 s, 0.2 s, ..., 2 s
    assert switching.waits()
    there[0] = True
    now[0] += 2.0
    assert [twin.f(1) for _ in range(3)] == ["compiled"] * 3
    assert len(looked) == 9, "once it is there, it is used at once"


def test_errors_are_those_of_the_kernel():
    def wrong(x):
        raise ValueError("code 7 is above 6")

    twin = switched(module(f=lambda x: "plain"), module(f=wrong), agreed())
    with pytest.raises(ValueError, match="code 7"):
        twin.f(1)
    assert switching.waits()


def test_wrong_kernels_are_never_used(caplog):
    agreement = Agreement(lambda: False, choice._say_wrong)
    twin = switched(module(f=lambda x: "plain"), module(f=lambda x: "compiled"), agreement)
    assert [twin.f(1) for _ in range(3)] == ["plain"] * 3
    assert len(caplog.messages) == 1
    assert "do not give the numbers that they should" in caplog.text


def test_all_kernels_in_use_have_both_forms():
    twin = switched(numpy_kernels, numba_kernels, agreed())
    assert set(numpy_kernels.__all__) <= set(vars(twin))


# --- what is asked of the other process ----------------------------------------------------------


class Asked:
    def __init__(self, answer):
        self.answer, self.lines = answer, []

    def ask(self, folder, function, signature):
        self.lines.append(signatures.to_line(function, signature))
        return self.answer


def lonely(monkeypatch, tmp_path, answer):
    """Return a kernel without a cache, and what was asked for it."""
    monkeypatch.setattr(disk_cache.config, "CACHE_DIR", str(tmp_path))
    asked, places = Asked(answer), disk_cache._Places()
    monkeypatch.setattr(disk_cache, "background", asked)
    kernel = jit.numba.njit(jit.mix.py_func)
    kernel._cache = disk_cache.KernelCache(jit.mix.py_func, lambda: places)
    return kernel, asked


def test_nobody_is_asked_by_who_waits(monkeypatch, tmp_path):
    kernel, asked = lonely(monkeypatch, tmp_path, True)
    word = kernel(*map(np.uint32, (1, 2, 3)))
    assert word == jit.mix(*map(np.uint32, (1, 2, 3)))
    assert not asked.lines


def test_who_does_not_wait_asks_and_takes_what_is_there(monkeypatch, tmp_path):
    kernel, asked = lonely(monkeypatch, tmp_path, True)
    words = tuple(map(np.uint32, (1, 2, 3)))
    with without_waiting(), pytest.raises(NotCompiledError):
        kernel(*words)
    (line,) = asked.lines
    assert line == '["jit", "mix", ["uint32", "uint32", "uint32"]]'
    waiting, _ = lonely(monkeypatch, tmp_path, True)
    waiting(*words)
    with without_waiting():
        assert kernel(*words) == waiting(*words)
    assert asked.lines == [line], "nothing is asked where the cache is warm"


def test_what_cannot_be_asked_for_is_compiled_here(monkeypatch, tmp_path):
    kernel, asked = lonely(monkeypatch, tmp_path, False)
    with without_waiting():
        kernel(*map(np.uint32, (1, 2, 3)))
    assert len(asked.lines) == 1


ARRAYS = {
    "C": np.zeros(4, np.float32),
    "two": np.zeros((2, 3), np.uint32),
    "read only": np.frombuffer(bytes(8), np.uint8),
    "strided": np.zeros(8, np.int64)[::2],
    "unaligned": np.frombuffer(bytearray(9), np.uint8)[1:].view(np.float32),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_types_cross_as_text(array):
    types = tuple(map(jit.numba.typeof, (array, True, 1, 1.5, np.uint32(7), np.float32(1))))
    line = signatures.to_line(jit.mix.py_func, types)
    kernel, back = signatures.from_line(line)
    assert kernel is jit.mix
    assert (back, list(map(repr, back))) == (types, list(map(repr, types)))


def test_what_is_no_kernel_of_ours_has_no_line():
    assert signatures.to_line(numba_kernels.np.sum, (jit.numba.int64,)) is None
    assert signatures.to_line(jit.mix.py_func, (jit.numba.types.unicode_type,)) is None


def test_a_process_that_fails_is_named_once(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(background.sys, "executable", str(tmp_path / "nothing"))
    asking = background.Background()
    for _ in range(3):
        assert asking.ask(tmp_path, jit.mix.py_func, (jit.numba.uint32,) * 3)
    (line,) = caplog.messages
    assert "numpy's stay in use, with the same bytes" in line
    assert "FLOWERPRESS_KERNELS=numba" in line


def test_a_process_that_cannot_keep_anything_is_named_once(tmp_path, caplog):
    asking = background.Background()  # of a folder that is not that of these sources
    stop = time.monotonic() + 60
    while not caplog.messages and time.monotonic() < stop:
        assert asking.ask(tmp_path, jit.mix.py_func, (jit.numba.uint32,) * 3)
        time.sleep(0.02)
    assert asking.ask(tmp_path, jit.mix.py_func, (jit.numba.uint32,) * 3)
    (line,) = caplog.messages
    assert "(exit status 1)" in line
    assert asking._child is None


@posix
def test_one_process_for_a_folder(tmp_path):
    started = []

    class Quiet(background.Background):
        def _start(self, folder):
            started.append(super()._start(folder))
            return started[-1]

    one, two = Quiet(), Quiet()
    for asking in (one, two):
        asking.ask(tmp_path, jit.mix.py_func, (jit.numba.uint32,) * 3)
    one.stop()
    assert [each is not None for each in started] == [True, False]
    assert started[0].poll() is not None


# --- the whole of it, in processes ---------------------------------------------------------------

WORK = """
import os, signal, sys, time
import numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from flowerpress.compressors import make_compressor
from flowerpress.compressors.kernels.numba.background import background
x = np.linspace(-1, 1, 300, dtype=np.float32)
c = make_compressor("randk:0.1")
c.compress(x)
print(background._child.pid if background._child else 0, flush=True)
"""


def start(folder, code, **options):
    env = {k: v for k, v in os.environ.items() if k != "FLOWERPRESS_KERNELS"}
    env |= {"NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env=env, **pipes, **options)


def gone(pid):
    stop = time.monotonic() + 20
    while time.monotonic() < stop:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True  # its own parent is gone, and nobody else has waited for it yet
        time.sleep(0.05)
    return False


ENDS = {"return": "", "exception": "1 / 0", "kill": "time.sleep(60)", "ctrl-c": "time.sleep(60)"}


@posix
@pytest.mark.parametrize("end", ENDS)
def test_the_other_process_ends_with_this_one(end, tmp_path):
    with start(tmp_path, WORK + ENDS[end], start_new_session=True) as process:
        pid = int(process.stdout.readline())
        assert pid
        if end == "kill":
            process.kill()
        elif end == "ctrl-c":
            os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=100)
    assert (err == "") == (end in ("return", "kill")), err
    assert gone(pid)


@pytest.mark.slow
def test_kernels_are_compiled_meanwhile_and_then_none_is_asked_for(tmp_path):
    until = """
from flowerpress.compressors.kernels import kernels
stop = time.monotonic() + 200
while background._child and time.monotonic() < stop:
    c.compress(x)
    time.sleep(0.05)
print(background._child, background._failed)
"""
    out, err = start(tmp_path, WORK + until).communicate(timeout=300)
    assert (out.split()[1:], err) == (["None", "False"], "")
    assert list(tmp_path.glob("flowerpress-*/*.nbc"))
    out, err = start(tmp_path, WORK).communicate(timeout=300)
    assert (out, err) == ("0\n", ""), "the cache is warm: no process is started"
