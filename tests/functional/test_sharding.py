"""Blocks of tensors against slices of whole ones; test_processes.py has them on two processes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from supple.functional.sharding import Block, block_of, gathered, is_sharded, local


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    whole = draw(st.lists(st.integers(1, 5), max_size=3))
    offset = [draw(st.integers(0, size)) for size in whole]
    shape = [draw(st.integers(0, size - first)) for size, first in zip(whole, offset, strict=True)]
    return Block(torch.Size(whole), torch.Size(shape), tuple(offset))


@given(blocks())
def test_the_index_of_an_entry_is_its_place_in_the_whole(block: Block) -> None:
    numbers = torch.arange(block.whole.numel()).view(block.whole)
    part = block.of(numbers)
    assert part.shape == block.shape
    index = block.every_index(torch.device("cpu"))
    assert torch.equal(index, part)
    place = torch.where(torch.ones_like(part, dtype=torch.bool))[: part.ndim]
    assert torch.equal(block.index(place).expand(part.numel()), part.flatten())
    assert torch.equal(block.of(numbers.expand(2, *block.whole), leading=1)[1], part)


def test_an_ordinary_tensor_is_its_own_block() -> None:
    tensor = torch.randn(3, 4, requires_grad=True)
    block = block_of(tensor)
    assert not is_sharded(tensor)
    assert (block.shape, block.offset, block.mesh) == (tensor.shape, (0, 0), None)
    assert local(tensor).data_ptr() == gathered(tensor).data_ptr() == tensor.data_ptr()
    kept = torch.randn(2, 3, 4)
    assert block.join(kept) is kept
    assert torch.equal(block.split(kept), kept)
    assert block.total(kept) is kept
