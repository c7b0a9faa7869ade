"""Tensors on their way between stages, as numpy arrays: Ray moves those without a copy, torch's own with several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

# numpy has no such types: they travel as unsigned integers of their width.
_DISGUISED = {
    torch.bfloat16: torch.uint16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
}
_PLAIN = (
    torch.float64, torch.float32, torch.float16,
    torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool,
)  # fmt: skip
_BY_NAME = {str(dtype).removeprefix("torch."): dtype for dtype in (*_DISGUISED, *_PLAIN)}


@dataclass(frozen=True, eq=False)
class PackedTensor:
    """A tensor's elements, contiguous, and the name of its torch dtype (`"bfloat16"`), which says how to read them."""

    array: NDArray[np.generic]
    dtype: str

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


def pack(tensor: Tensor) -> PackedTensor:
    """Shares memory with a contiguous CPU tensor (do not write to it until the pack has been sent); others are copied.

    Raises:
        TypeError: the dtype is none of those that travel (complex and quantized ones do not).
    """
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in _BY_NAME:
        raise TypeError(f"dtype {tensor.dtype} does not travel; these do: {', '.join(_BY_NAME)}")
    plain = tensor.detach().to("cpu").contiguous()
    return PackedTensor(plain.view(_DISGUISED.get(plain.dtype, plain.dtype)).numpy(), name)


def unpack(packed: PackedTensor, device: torch.device | str | None = None) -> Tensor:
    """The tensor, on the CPU without a copy, or copied to `device`.

    A tensor on the CPU is for reading: its memory may be Ray's object store, which every reader on the node shares, and
    torch cannot mark it as read-only. Who wants to write makes a `clone()` first. On another device it is the caller's.
    """
    # Through DLPack, because `from_numpy` warns of every read-only array, and those are all that Ray hands out.
    tensor = from_dlpack(packed.array)
    dtype = _BY_NAME[packed.dtype]
    tensor = tensor.view(dtype) if tensor.dtype != dtype else tensor
    return tensor if device is None else tensor.to(device)
