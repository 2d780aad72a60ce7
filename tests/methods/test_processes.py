"""Two processes that train one network do what one process does, whether each holds all of it or half."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import two_processes
from two_processes import COPIED, DROPPED, HALF, METHODS, OTHERS, PENALTIES, STEPS, dropped, half, train, unread

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed"),
    pytest.mark.skipif(
        tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7), reason="fully_shard runs on a CPU from torch 2.7 on"
    ),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    ranks = [
        subprocess.Popen(
            [sys.executable, two_processes.__file__, str(rank), str(folder)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    problems = [process.communicate(timeout=240)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(problems)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@cache
def alone(name: str) -> dict[str, Any]:
    """What one process does."""
    return train(name)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "parallel") for name in METHODS),
        *((name, "sharded") for name in METHODS if name not in PENALTIES),
        *((name, "copied") for name in COPIED),
    ],
)
def test_two_processes_do_what_one_does(name: str, how: str, found: list[dict[str, Any]]) -> None:
    expected = alone(name)
    for rank in found:
        run = rank[f"{how} {name}"]
        assert run["counts"] == expected["counts"]
        for step in range(STEPS):
            for key, mask in expected["changes"][step].items():
                assert torch.equal(run["changes"][step][key], mask), (step, key)
        for kind in ("values", "moments"):
            for key, value in expected[kind].items():
                torch.testing.assert_close(run[kind][key], value, rtol=1e-9, atol=1e-12)
    for kind in ("values", "moments"):
        for key, value in found[0][f"{how} {name}"][kind].items():
            assert torch.equal(value, found[1][f"{how} {name}"][kind][key])
    if name not in OTHERS:
        assert bool(sum(expected["counts"]) > 3) is (name not in ("L2", "S&P", *PENALTIES))


@pytest.mark.parametrize("name", HALF)
def test_small_changes_in_half_precision_do_not_depend_on_the_division(name: str, found: list[dict[str, Any]]) -> None:
    expected = half(name)
    for rank in found:
        for key, value in expected.items():
            assert torch.equal(rank[f"half {name}"][key], value), key


def test_what_is_not_said_or_not_known_is_refused(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert "Pass the DistributedDataParallel module" in rank["errors"]["unknown group"]
        assert "a stacked network cannot be sharded" in rank["errors"]["stacked"]
        assert "not where tensor parallelism divides the features" in rank["errors"]["tensor parallel"]
        assert "several processes train this network; give InFeR" in rank["errors"]["infer without an optimizer"]
        assert "change the network inside of it" in rank["errors"]["surgery of a wrapped network"]
        assert "change it before fully_shard" in rank["errors"]["surgery of a sharded network"]
        for name in PENALTIES:
            assert "sharded parameters cannot be exchanged" in rank["errors"][f"sharded {name}"]


def test_processes_that_train_one_network_have_the_first_ones_seed(found: list[dict[str, Any]]) -> None:
    first, second = (rank["seeds"] for rank in found)
    assert first["own"] != second["own"]
    together = ["parallel", "sharded", "copied", "plain", "plain again", "group"]
    assert [first[how] for how in together] == [second[how] for how in together]
    assert len({first[how] for how in together}) == len(together)
    assert first["alone"] != second["alone"]
    assert [first["stated"], second["stated"]] == [0, 1]


def test_who_waits_for_the_seed_of_a_method_that_is_not_made_is_told(found: list[dict[str, Any]]) -> None:
    first, second = (rank["seeds"] for rank in found)
    assert isinstance(first["only here"], int)
    assert "process 0, whose seed is that of the ShrinkAndPerturb, made none for this network" in second["only here"]
    assert "state the seed: ShrinkAndPerturb(..., seed=...)" in second["only here"]
    assert "waiting for process 0" in second["warning"]


def test_blocks_are_where_they_are_said_to_be(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert len(rank["blocks"]) == 12
        assert all(rank["blocks"].values()), rank["blocks"]


def test_a_process_that_read_nothing_of_a_layer_takes_part(found: list[dict[str, Any]]) -> None:
    expected = unread(-1)
    for rank in found:
        run = rank["unread"]
        for one, other in zip(run["values"], expected["values"], strict=True):
            for key, value in other.items():
                torch.testing.assert_close(one[key], value, rtol=1e-9, atol=1e-12)
        assert "no forward pass" in run["nothing read"]
        assert run["steps"] == 4


@pytest.mark.parametrize("name", DROPPED)
def test_processes_agree_on_which_layers_ran(name: str, found: list[dict[str, Any]]) -> None:
    expected = dropped(name, -1)
    for rank in found:
        run = rank["dropped"][name]
        assert run["counts"] == expected["counts"]
        for key, value in expected["values"].items():
            torch.testing.assert_close(run["values"][key], value, rtol=1e-9, atol=1e-12)
    assert expected["counts"][-1][0] or sum(count for count, _ in expected["counts"]) > 3
    assert expected["counts"][-1][1] > 0
