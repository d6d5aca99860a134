"""Half-precision numbers, in which the embeddings of chunks are kept, as single-precision ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of a half-precision number that was shifted into single precision: the bits it may have, and what it lacks.
_SINGLE_BITS = np.array([0x8FFFE000], dtype=np.uint32).view(np.int32)
_EXPONENT_BIAS = np.float32(2.0 ** (127 - 15))


def singles(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    """Convert finite numbers from half to single precision: exactly, and several times as fast as NumPy does."""
    bits = halves.view(np.int16).astype(np.int32)
    bits <<= 13  # exponent and fraction to their place, the sign to its
    bits &= _SINGLE_BITS
    converted = bits.view(np.float32)
    converted *= _EXPONENT_BIAS
    return converted
