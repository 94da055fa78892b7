"""Which tensors stay on their device, and that operations on them stay there too."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from flowerpress.compressors import make_compressor
from flowerpress.compressors.base import as_vector
from flowerpress.compressors.kernels import device
from tests.compressors.test_torch_path import SPECS

torch = pytest.importorskip("torch")
from flowerpress.compressors.kernels.torch import common as torch_encode  # noqa: E402
from flowerpress.compressors.kernels.torch import halves as torch_halves  # noqa: E402
from flowerpress.compressors.kernels.torch import natural as torch_natural  # noqa: E402
from flowerpress.compressors.kernels.torch import sums as torch_sums  # noqa: E402
from flowerpress.compressors.kernels.torch import words as torch_words  # noqa: E402


def test_what_stays_on_the_device(monkeypatch):
    monkeypatch.setenv(device.VARIABLE, "1")
    x = torch.ones(5)
    assert device.stays_on_device(x)
    assert not device.stays_on_device(x.numpy())
    assert not device.stays_on_device(x.half())
    assert not device.stays_on_device(torch.ones(5, device="meta"))
    assert isinstance(as_vector(x, True), device.DeviceVector)
    assert isinstance(as_vector(x), np.ndarray)
    for value in ("0", ""):
        monkeypatch.setenv(device.VARIABLE, value)
        assert not device.stays_on_device(x)
    monkeypatch.setenv(device.VARIABLE, "yes")
    with pytest.raises(ValueError, match="FLOWERPRESS_TORCH must be 0 or 1, got 'yes'"):
        make_compressor("sign").compress(x)


def test_torch_is_not_imported_for_arrays():
    code = (
        "import sys, numpy; from flowerpress.compressors import make_compressor;"
        "make_compressor('qsgd').compress(numpy.ones(5)); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def lists_places(spec):
    """Whether it asks where values are large: how many places there are depends on the values."""
    by_rms = spec.startswith("cq") and "range=max" not in spec and "range=l2" not in spec
    return by_rms or spec.startswith("topk")


@pytest.mark.parametrize("spec", [s for s in SPECS if not lists_places(s)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_operation_mixes_devices(spec, dtype, monkeypatch):
    """On torch's device without values, which refuses operations with tensors of the host."""
    dtypes = {torch.float32: "f4", torch.float64: "f8", torch.uint8: "u1", torch.int16: "i2"}

    def made_up(tensor):
        assert tensor.device.type == "meta"
        return np.ones(tuple(tensor.shape), dtypes[tensor.dtype])

    for module in (device, torch_encode, torch_halves, torch_natural, torch_sums, torch_words):
        monkeypatch.setattr(module, "to_host", made_up)
    monkeypatch.setattr(device, "_KINDS", ("meta",))
    # These two look at values.
    monkeypatch.setattr(torch_encode, "nonfinite_position", lambda x: -1)
    monkeypatch.setattr(torch_natural, "largest_magnitude", lambda x: 1.5)
    compressor = make_compressor(spec).bind((5000, 3))
    assert compressor.compress(torch.empty(5003, dtype=dtype, device="meta")).dim == 5003
