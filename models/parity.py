"""Start-up checks: what computes faster against transformers' own, on the model, device and type that serve."""

from __future__ import annotations

import torch
from torch import Tensor

# Of the largest value. Another order of sums moves float32 by 1e-6 and bfloat16, over 28 layers, by some percent; a
# wrong position or mask, or windows that are mixed up, by about 1.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


def deviation(found: Tensor, expected: Tensor, what: str) -> float:
    """The largest difference, of the largest value of `expected`.

    Raises:
        RuntimeError: it is beyond the tolerance of the type, or no number; `what` says whose it is.
    """
    value = float((found - expected).abs().max() / expected.abs().max())
    limit = TOLERANCE[expected.dtype]
    if not value <= limit:
        raise RuntimeError(
            f"{what} deviates from transformers' by {value:.2g} of the largest value, beyond {limit}: the installed "
            "transformers computes this model differently"
        )
    return value
