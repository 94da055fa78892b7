"""Torch tensors are compressed like arrays, without a copy on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compressors import make_compressor
from flowerpress.compressors.base import as_vector

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("spec", ["identity", "topk:0.1", "randk:0.1", "sign", "qsgd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bytes_as_the_array(spec, dtype):
    x = torch.randn(3000, dtype=dtype, generator=torch.Generator().manual_seed(0))
    compressor = make_compressor(spec)
    assert compressor.compress(x) == compressor.compress(x.numpy())
    assert compressor.compress(x.requires_grad_()) == compressor.compress(x.detach().numpy())


def test_a_cpu_tensor_is_viewed():
    x = torch.arange(5.0)
    assert np.shares_memory(as_vector(x), x.numpy())


def test_strides_are_followed():
    x = torch.arange(10.0)[::2]
    assert as_vector(x).tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got"):
        make_compressor("sign").compress(torch.ones(3, dtype=dtype))


def test_other_objects_are_refused():
    with pytest.raises(ValueError, match="expected a numpy array or a torch tensor, got list"):
        make_compressor("sign").compress([1.0, 2.0])
