"""Which rows a mask on the host becomes."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supple.lab.nn import StackedMLP
from supple.methods import swr, weights
from supple.methods.when import replicas_at, rows_of

CPU = torch.device("cpu")


@settings(deadline=None, derandomize=True)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_rows_are_those_of_the_mask(due: list[bool]) -> None:
    expected = [r for r, one in enumerate(due) if one]
    rows = rows_of(torch.tensor(due), CPU)
    if rows is None:
        assert expected == []
        return
    assert torch.arange(len(due))[rows].tolist() == expected
    assert replicas_at(rows, torch.arange(len(expected))).tolist() == expected
    even = len({b - a for a, b in itertools.pairwise(expected)}) <= 1
    assert isinstance(rows, slice) == even


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=9).filter(any), st.integers(1, 200))
def test_parts_of_rows_are_all_of_them_in_order(due: list[bool], entries: int) -> None:
    network = StackedMLP(list(range(len(due))), inputs=5, hidden=4, outputs=3)
    method = swr.SWR(network, factor=[float(one) for one in due], frequency=1)
    rows = rows_of(torch.tensor(due), CPU)
    assert rows is not None
    parts = []

    def noted(w: weights.Weights) -> None:
        if w.name == "blocks.0.linear.weight":
            parts.append(torch.arange(len(due))[w.rows].tolist())

    before, weights._ENTRIES = weights._ENTRIES, entries
    try:
        method._each(noted, rows, gradients=False)
    finally:
        weights._ENTRIES = before
    assert list(itertools.chain.from_iterable(parts)) == [r for r, one in enumerate(due) if one]
    assert max(map(len, parts)) <= max(1, entries // 20)
