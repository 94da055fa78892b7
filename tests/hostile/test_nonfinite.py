"""No number in a packet can be replaced by one that is not finite, or makes what is decoded so."""

import numpy as np
import pytest

from flowerpress.compressors import Draw, PacketError, add_to, make_compressor, norm
from flowerpress.compressors.testing.hostile import resealed
from flowerpress.compressors.wire.packet import HEADER_BYTES
from tests.compressors.table import COMPRESSORS

DIM = 21
VALUES = (np.nan, np.inf, -np.inf)


def judged(data, dtype):
    """Whether a packet is refused, having changed nothing; else it must be finite, in all ways."""
    out = np.ones(DIM, dtype)
    try:
        add_to(data, out)
    except PacketError:
        assert (out == 1).all()
        return True
    assert np.isfinite(out).all()
    assert np.isfinite(norm(data))
    return False


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spec", [*COMPRESSORS, "randsign"])
def test_wherever_the_number_is(spec, dtype):
    x = np.linspace(-0.9, 0.8, DIM).astype(dtype)
    data = make_compressor(spec).bind_shapes(((3, 5), (6,))).compress(x, Draw(seed=4)).data
    assert not judged(data, dtype)
    refusals = 0
    for value in VALUES:
        pattern = np.array([value], dtype).tobytes()
        for at in range(HEADER_BYTES, len(data) - len(pattern) + 1):
            bad = data[:at] + pattern + data[at + len(pattern) :]
            refusals += judged(resealed(bad), dtype)
    assert refusals or spec == "natural"  # a power of two and codes: no number to replace


@pytest.mark.parametrize("spec", COMPRESSORS)
def test_a_weight_that_makes_it_overflow(spec):
    """Finite numbers, refused for the weight: the sum is left as it was."""
    x = np.linspace(0.5, 1, DIM)
    packet = make_compressor(spec).bind_shapes(((3, 5), (6,))).compress(x, Draw(seed=4))
    out = np.ones(DIM, np.float32)
    with pytest.raises(PacketError):
        add_to(packet, out, 1e300)
    assert (out == 1).all()
