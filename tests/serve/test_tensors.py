from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest
import torch

from serve.tensors import _BY_NAME, PackedTensor, pack, unpack


def sent(packed: PackedTensor) -> PackedTensor:
    """What Ray's object store makes of it: the elements out of band, in read-only shared memory."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(packed, protocol=5, buffer_callback=buffers.append)
    arrived: PackedTensor = pickle.loads(data, buffers=[memoryview(bytes(buffer.raw())) for buffer in buffers])
    return arrived


def of_every_bit(dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if dtype == torch.bool:
        return torch.rand(6, 8, generator=generator) > 0.5
    raw = torch.randint(0, 256, (6, 8 * torch.empty(0, dtype=dtype).element_size()), generator=generator)
    return raw.to(torch.uint8).view(dtype)


@pytest.mark.parametrize("name", _BY_NAME)
def test_every_dtype_arrives_bit_by_bit(name: str) -> None:
    tensor = of_every_bit(_BY_NAME[name])
    arrived = unpack(sent(pack(tensor)))
    assert arrived.dtype == tensor.dtype
    assert arrived.shape == tensor.shape
    assert torch.equal(arrived.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_shape_arrives(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    packed = pack(torch.ones(shape, dtype=dtype))
    assert unpack(sent(packed)).shape == torch.Size(shape) == torch.Size(packed.shape)
    assert packed.nbytes == torch.Size(shape).numel() * dtype.itemsize


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_neither_packing_nor_unpacking_copies_on_the_cpu(dtype: torch.dtype) -> None:
    tensor = torch.zeros(1000, dtype=dtype)
    packed = pack(tensor)
    assert packed.array.ctypes.data == tensor.data_ptr()
    arrived = sent(packed)
    assert not arrived.array.flags.writeable
    assert unpack(arrived).data_ptr() == unpack(arrived, "cpu").data_ptr() == arrived.array.ctypes.data


def test_an_unpacked_tensor_keeps_its_memory_alive() -> None:
    tensor = unpack(sent(pack(torch.arange(100_000))))
    gc.collect()
    churn = [np.full(100_000, 7) for _ in range(10)]
    assert torch.equal(tensor, torch.arange(100_000))
    assert len(churn) == 10


def test_a_transposed_or_differentiable_tensor_is_packed_in_its_logical_order() -> None:
    tensor = torch.arange(6.0).view(2, 3).t().requires_grad_()
    packed = pack(tensor)
    assert packed.array.flags.c_contiguous
    assert torch.equal(unpack(packed), torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))
    assert not unpack(packed).requires_grad


def test_a_tensor_on_another_device_is_a_copy() -> None:
    packed = sent(pack(torch.ones(3)))
    assert unpack(packed, "meta").device.type == "meta"


def test_a_dtype_that_does_not_travel_is_named() -> None:
    with pytest.raises(TypeError, match="complex64"):
        pack(torch.zeros(1, dtype=torch.complex64))
