"""Slices against loops over the entries of a tensor."""

from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import supple
from supple import Consumer, Excluded, Feature, Norm, Slice, UnitGroup, Units

CPU = torch.device("cpu")


@st.composite
def layouts(draw):
    """A tensor of one network, and a slice of it."""
    units, copies, repeat = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    start, rest = draw(st.integers(0, 3)), draw(st.integers(0, 2))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    dim = draw(st.integers(0, len(shape) - 1))
    shape[dim] = start + units * copies * repeat + rest
    named = dim - len(shape) if draw(st.booleans()) else dim
    return torch.Size(shape), dim, units, Slice("w", named, start, copies, repeat)


def entries(shape, dim, units, part, unit):
    """Row-major indices of a unit's entries, one by one."""
    found = []
    for index, place in enumerate(
        torch.cartesian_prod(*(torch.arange(n) for n in shape)).view(-1, len(shape)).tolist()
    ):
        along = place[dim] - part.start
        if 0 <= along < part.copies * units * part.repeat and along // part.repeat % units == unit:
            found.append(index)
    return found


@given(layouts(), st.integers(0, 2))
def test_view_and_index_agree_with_a_loop(layout, leading):
    shape, dim, units, part = layout
    tensor = torch.arange(shape.numel()).view(shape)
    stack = tensor.expand(*[2] * leading, *shape).clone()
    view = part.view(stack, units, leading)
    first, stride, offsets = part.index(shape, units, CPU)
    assert view.shape[: leading + 1] == (*[2] * leading, units)
    assert offsets.shape == view.shape[leading + 1 :]
    assert offsets.dtype == torch.int64
    for unit in range(units):
        expected = entries(shape, dim, units, part, unit)
        mine = view[(1,) * leading + (unit,)]
        assert sorted(mine.flatten().tolist()) == expected
        assert torch.equal(first + unit * stride + offsets, mine)


def test_a_view_writes_into_the_tensor_whatever_its_memory_order():
    weight = torch.zeros(3, 8, 2, 2).to(memory_format=torch.channels_last)
    Slice("w", dim=1, copies=2, repeat=2).view(weight, 2)[1] = 1
    assert torch.where(weight.sum(dim=(0, 2, 3)) > 0)[0].tolist() == [2, 3, 6, 7]
    assert float(weight.sum()) == 3 * 4 * 4


def test_layouts_in_words_of_the_docstring():
    columns = torch.arange(12)
    assert Slice("w", repeat=4).view(columns, 3).flatten(1).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert Slice("w", copies=2).view(columns, 6)[1].flatten().tolist() == [1, 7]


def test_a_tensor_that_is_too_short_is_named_with_what_is_needed():
    with pytest.raises(
        ValueError, match=r"fc\.weight has 8 entries along dimension 1, but 3 units need entries 2 to 10"
    ):
        Slice("fc.weight", dim=1, start=2, repeat=3).view(torch.zeros(2, 8), 3)


@pytest.mark.parametrize("leading", [0, 1])
@pytest.mark.parametrize("dim", [2, 3, -3, -4])
def test_a_dimension_that_the_tensor_does_not_have(dim, leading):
    part, shape = Slice("fc.weight", dim=dim), torch.Size([4, 4])
    message = rf"fc\.weight has 2 dimensions .*dim={dim}; dim has to be at least -2 and below 2"
    with pytest.raises(ValueError, match=message):
        part.view(torch.zeros(*[4] * leading, *shape), 4, leading)
    with pytest.raises(ValueError, match=message):
        part.index(shape, 4, CPU)
    with pytest.raises(ValueError, match=rf"the activations has 2 .*dim={dim}"):
        Feature("act", "output", Slice("", dim=dim)).view(torch.zeros(*[4] * leading, *shape), 4, leading)


@pytest.mark.parametrize(("name", "value", "least"), [("start", -1, 0), ("copies", 0, 1), ("repeat", -2, 1)])
def test_a_slice_of_nothing_is_refused(name, value, least):
    with pytest.raises(ValueError, match=rf"{name} of the slice of fc\.bias is {value}; it has to be {least} or more"):
        Slice("fc.bias", **{name: value})
    Slice("fc.bias", **{name: least})


def test_a_group_of_no_units_is_refused():
    with pytest.raises(ValueError, match="size of the unit group 'fc' is 0; it has to be 1 or more"):
        UnitGroup("fc", 0, Feature("act", "output", Slice("")), (Slice("fc.weight"),), ())


def test_units_are_a_sequence_and_print_as_a_table():
    group = UnitGroup(
        name="fc",
        size=4,
        feature=Feature("act", "output", Slice("", dim=-1)),
        incoming=(Slice("fc.weight"),),
        bias=(Slice("fc.bias"),),
        consumers=(Consumer(Slice("out.weight", dim=1), "out.bias"), Consumer(Slice("skip.weight", dim=1))),
        norms=(Norm(scale=Slice("norm.weight"), running_mean=Slice("norm.running_mean")),),
    )
    units = Units([group], [Excluded("conv", "it is grouped")])
    assert len(units) == 1
    assert units[0] is group
    assert list(units) == [group]
    table, excluded = repr(units).splitlines()[:2], repr(units).splitlines()[2:]
    assert table[1].split("  ")[0] == "fc"
    for word in ("4", "output of act", "fc.weight, fc.bias", "out.weight, skip.weight", "norm.weight"):
        assert word in table[1]
    assert excluded == ["excluded: conv: it is grouped"]
    columns = [table[0].index(title) for title in ("units", "features read at", "in ", "out", "normalization")]
    assert [table[1][column - 1] for column in columns] == [" "] * 5
    assert supple.Units is Units


def test_a_notebook_shows_the_cells_of_what_is_printed() -> None:
    class Escaped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({"<b>": nn.Linear(3, 4), "out": nn.Linear(4, 2)})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers["out"](self.layers["<b>"](x).relu())

    model = Escaped()
    for shown in (supple.units(model, torch.rand(2, 3)), supple.initial_distributions(model)):
        page = ElementTree.fromstring(f"<page>{shown._repr_html_()}</page>")
        cells = [cell.text or "" for cell in page.iter() if cell.tag in ("th", "td")]
        assert "layers.<b>" in " ".join(cells)
        printed = repr(shown)
        assert all(cell in printed for cell in cells if cell not in ("left out", "because"))
