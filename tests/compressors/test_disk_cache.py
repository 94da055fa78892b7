"""Whatever is wrong with the kernels' cache, kernels run, and one line says what it costs."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numba
import pytest

import flowerpress
from flowerpress.compressors.kernels import choice
from flowerpress.compressors.kernels.numba import disk_cache
from flowerpress.compressors.kernels.numba import levels as jit_levels

ROOT = Path(flowerpress.__file__).parent


def plus_one(x):
    return x + 1


@pytest.fixture(autouse=True)
def afresh(monkeypatch):
    monkeypatch.setattr(disk_cache, "_said", set())
    monkeypatch.setattr(disk_cache, "_clock", disk_cache._Clock())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only folder for caches."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path / f"flowerpress-{disk_cache.digest()}"


def run():
    """Do as a fresh process does; return the result, and how often it was not compiled."""
    places = disk_cache._Places()
    kernel = numba.njit(plus_one)
    kernel._cache = disk_cache.KernelCache(plus_one, lambda: places)
    return kernel(1), sum(kernel.stats.cache_hits.values())


def the(folder, kind):
    (path,) = folder.glob(f"*.{kind}")
    return path


def test_the_second_process_does_not_compile(folder, caplog):
    assert run() == (2, 0)
    assert sorted(path.suffix for path in folder.iterdir()) == [".nbc", ".nbi"]
    assert run() == (2, 1)
    assert not caplog.records


def resealed_garbage(path):
    path.write_bytes(b"garbage" + hashlib.sha256(b"garbage").digest())


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


DAMAGES = {
    "empty": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "garbage": lambda path: path.write_bytes(b"\x80\x04garbage" * 99),
    "garbage with a checksum": resealed_garbage,
    "one bit": flipped,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_passed_over_and_mended(kind, damage, folder, caplog):
    run()
    damage(the(folder, kind))
    assert run() == (2, 0)
    (line,) = caplog.messages
    assert f"in {folder} is damaged" in line
    assert "compiled anew, which takes about a minute, once" in line
    caplog.clear()
    assert run() == (2, 1)
    assert not caplog.records


def test_a_file_that_is_gone(folder, caplog):
    run()
    the(folder, "nbc").unlink()
    assert run() == (2, 0)
    assert run() == (2, 1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_full_disk(number, folder, monkeypatch, caplog):
    def fails(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk_cache.os, "replace", fails)
    assert run() == (2, 0)
    assert run() == (2, 0)
    (line,) = caplog.messages
    assert f"in {folder} cannot be written ([Errno {number}] {os.strerror(number)})" in line
    assert "every process compiles them anew, about a minute" in line
    assert "NUMBA_CACHE_DIR" in line
    assert not list(folder.iterdir())


def test_no_folder_at_all(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(disk_cache, "_PATIENCE", 0.0)
    assert run() == (2, 0)
    said(caplog, "anew in every process")
    assert str(tmp_path / "file") in caplog.text
    assert "FLOWERPRESS_KERNELS=numpy" in caplog.text


def said(caplog, text):
    """Wait for the clock's thread."""
    stop = time.monotonic() + 10
    while text not in caplog.text:
        assert time.monotonic() < stop, caplog.text
        time.sleep(0.01)


def test_a_long_compilation_says_so_once(folder, monkeypatch, caplog):
    monkeypatch.setattr(disk_cache, "_PATIENCE", 0.0)
    clock, places = disk_cache._Clock(), disk_cache._Places()
    for _ in range(3):
        clock.start(places)
        clock.start(places)  # a kernel that this one calls
        clock.stop()
        said(caplog, "compiling kernels: about a minute, once")
        clock.stop()
    assert len(caplog.records) == 1


def test_a_short_one_says_nothing(folder, monkeypatch, caplog):
    monkeypatch.setattr(disk_cache, "_PATIENCE", 0.05)
    clock, places = disk_cache._Clock(), disk_cache._Places()
    clock.start(places)
    clock.stop()
    time.sleep(0.1)
    assert not caplog.records
    for _ in range(9):  # many short ones are a long one
        clock.start(places)
        time.sleep(0.01)
        clock.stop()
    clock.start(places)
    said(caplog, "compiling kernels")


def test_other_sources_have_another_folder(folder, monkeypatch):
    run()
    monkeypatch.setattr(disk_cache, "digest", lambda: "another")
    assert run() == (2, 0)
    assert len(list(folder.parent.iterdir())) == 2


def test_any_source_changes_the_digest(tmp_path, monkeypatch):
    kernels = tmp_path / "kernels"
    shutil.copytree(ROOT / "compressors/kernels", kernels, ignore=shutil.ignore_patterns("__py*"))
    monkeypatch.setattr(disk_cache, "files", lambda _: kernels)
    found = {disk_cache.digest()}
    for name in ("rounding.py", "numba/jit.py", "numba/generated/sum_lanes.py"):
        with (kernels / name).open("a") as file:
            file.write("\n")
        found.add(disk_cache.digest.__wrapped__())
    assert len(found) == 4


def test_folders_that_nobody_uses_go(folder):
    run()
    old, new, other = (folder.parent / name for name in ("flowerpress-1", "flowerpress-2", "mine"))
    for each in (old, new, other):
        each.mkdir()
        (each / "file").touch()
    long_ago = time.time() - 31 * 86_400
    for each in (old, other, folder):
        os.utime(each, (long_ago, long_ago))
    assert run() == (2, 1)
    assert sorted(folder.parent.iterdir()) == sorted([new, other, folder])


def test_a_folder_that_is_only_read(folder, monkeypatch):
    run()
    monkeypatch.setattr(disk_cache, "_is_writable", lambda _: False)
    assert run() == (2, 1)


def test_wrong_kernels_are_not_used(monkeypatch, caplog):
    def wrong(k0, k1, block, words):
        words[:] = 0

    monkeypatch.setattr(jit_levels, "rounding_words", wrong)
    assert choice._load.__wrapped__("numba") == "numpy"
    assert "do not give the numbers that they should" in caplog.text


# What follows starts processes.

KERNEL = """
from flowerpress.compressors.kernels.numba import disk_cache, jit
disk_cache._PATIENCE = 0.0
@jit.jit
def plus_one(x):
    return x + 1
print(plus_one(1), sum(plus_one.stats.cache_hits.values()))
"""


def start(folder, code=KERNEL, **options):
    env = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    env["PYTHONPATH"] = options.pop("path", str(ROOT.parent))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": "/"}
    return subprocess.Popen([sys.executable, "-c", code], env=env, **pipes, **options)


@pytest.mark.slow
def test_processes_that_start_at_once(tmp_path):
    for process in [start(tmp_path) for _ in range(4)]:
        assert process.communicate(timeout=120)[0].startswith("2 ")
        assert process.returncode == 0
    assert start(tmp_path).communicate(timeout=120) == ("2 1\n", "")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_disk_that_takes_nothing(tmp_path):
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    out, lines = start(tmp_path, preexec_fn=limit).communicate(timeout=120)
    assert out == "2 0\n"
    assert "cannot be written ([Errno 27] File too large)" in lines
    assert not list(next(tmp_path.iterdir()).iterdir())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="users of POSIX")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o555)
    # Root may write anywhere, so another user does it, once all that numba needs is imported.
    become = "import os, numba\nnumba.njit(lambda x: x)(1)\nos.getuid() or os.setuid(65534)\n"
    tmp_path.parent.chmod(0o755)
    out, lines = start(tmp_path, become + KERNEL).communicate(timeout=120)
    tmp_path.chmod(0o755)
    assert out == "2 0\n", lines
    assert f"since none of the folders for them can be written ({tmp_path})" in lines
    assert len(lines.splitlines()) == 1


@pytest.mark.slow
def test_an_updated_helper_gives_the_bytes_of_its_twin(tmp_path, monkeypatch):
    """A constant changes in a module that kernels call into, and in numpy's twin of it."""
    package = tmp_path / "path/flowerpress"
    shutil.copytree(ROOT, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import hashlib, numpy as np; from flowerpress.compressors import Draw, make_compressor\n"
        "x = np.linspace(-1, 1, 3000, dtype='f4')\n"
        "data = make_compressor('randk:0.1,law=stratified').compress(x, Draw(seed=1)).data\n"
        "print(hashlib.sha256(data).hexdigest())"
    )

    def sent():
        return start(tmp_path / "cache", code, path=str(package.parent)).communicate(timeout=300)[0]

    first = sent()
    for name in ("numba/jit.py", "philox.py"):
        source = package / "compressors/kernels" / name
        source.write_text(source.read_text().replace("0x31848BAB", "0x31848BAD"))
    second = sent()
    monkeypatch.setenv("FLOWERPRESS_KERNELS", "numpy")
    third = sent()
    assert len(first) == 65
    assert first != second
    assert second == third
