"""The leaderboard: how settings are drawn and chosen, how methods are ranked, and the command."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_runs import run, words
from fake_results import Row, write

import supple
from supple.lab.report.leaderboard import board, mean_ranks, stratified, tables
from supple.lab.studies import leaderboard
from supple.lab.study.errors import StudyError
from supple.lab.study.permuted import PermutedProblem
from supple.lab.study.results import scan
from supple.methods import registry

IN_STUDIES = [name for name, method in registry.METHODS.items() if not method.loops_only]


@pytest.mark.parametrize("name", IN_STUDIES)
def test_settings_fill_the_ranges_that_a_method_states(name):
    """Of n draws each n-th part of a range, or of its logarithm, has one."""
    ranges, count = registry.METHODS[name].about.ranges, 60
    assert ranges, "a method that a study can train says where its settings are looked for"
    found = leaderboard.drawn(name, {"kind": name}, count)
    assert found == leaderboard.drawn(name, {"kind": name}, count)
    for key, values in ranges.items():
        given = [settings[key] for settings in found]
        default = registry.defaults(registry.METHODS[name])[key]
        assert all(type(one) is type(default) for one in given)
        if len(values) > 2:
            assert {given.count(one) for one in values} == {count // len(values)}
            continue
        low, high = values
        of = math.log if high >= 10 * low else float
        places = sorted((of(one) - of(low)) / (of(high) - of(low)) for one in given)
        # Whole numbers are rounded, and others to three digits.
        slack = 0.6 / low / math.log(high / low) if isinstance(default, int) else 0.01
        assert all(k / count - slack <= place <= (k + 1) / count + slack for k, place in enumerate(places))


def test_every_method_has_as_many_settings_at_the_same_step_sizes():
    known = leaderboard.problems()
    assert len(known) == 12
    for name in ("mlp100_norm_adam", "convolutional_sgd", "gpt_adam"):
        study = known[name]
        compared = leaderboard.contestants()
        columns = leaderboard.tuning(study, compared).columns
        grid = [column.optimizer for column in study.columns]
        assert len(grid) == 6
        for method in compared:
            own = [column for column in columns if column.method.rpartition("_")[0] == method]
            assert [column.optimizer for column in own] == grid


def test_what_ends_best_is_chosen(tmp_path):
    rows = [
        Row("base_1", kind="base", late=0.8),
        Row("base_2", kind="base", late=0.9),
        Row("swr_1", kind="swr", late=0.7),
        Row("swr_2", kind="swr", late=0.95, diverged=(0, 1, 2)),
        Row("swr_3", kind="swr", late=0.85),
    ]
    tuned = scan(write(tmp_path / "tuning", rows, tasks=20, seeds=3))
    chosen = leaderboard.choose(tuned, {"base": {"kind": "base"}, "swr": {"kind": "swr"}})
    assert chosen == {"base": tuned.study.methods["base_2"], "swr": tuned.study.methods["swr_3"]}


def test_unknown_methods_and_settings_are_named():
    with pytest.raises(StudyError, match=r"swr2.*Did you mean swr"):
        leaderboard.contestants(["swr2"])
    with pytest.raises(ValueError, match=r"c_chain needs .*use it in a loop of your own"):
        leaderboard.contestants(["c_chain"])


def test_a_method_that_has_the_name_of_another_does_not_take_its_place(tmp_path, monkeypatch):
    (tmp_path / "heirs.py").write_text("import supple\nclass Heir(supple.SWR):\n    'Acts as SWR does.'\n")
    monkeypatch.syspath_prepend(tmp_path)
    for kinds in (["heirs:Heir"], ["swr", "heirs:Heir"]):
        with pytest.raises(StudyError, match=r"heirs:Heir calls itself 'swr', as another method does"):
            leaderboard.contestants(kinds)
    # The same class by its place is the same method.
    assert list(leaderboard.contestants(["base", "supple.methods.swr:SWR"])) == ["base", "swr"]


def test_ranks_are_averaged_over_problems():
    """By hand: equal means share the ranks that they take, and the highest mean is first."""
    means = [np.array([0.9, 0.8, 0.7, 0.8]), np.array([0.1, 0.4, 0.3, 0.2])]
    assert mean_ranks(means).tolist() == [(1 + 4) / 2, (2.5 + 1) / 2, (4 + 2) / 2, (2.5 + 3) / 2]


def test_intervals_draw_seeds_within_each_problem():
    """Of a mean over problems the exact bootstrap distribution is known: all ways to draw two of two seeds."""
    samples = [np.array([[0.0, 1.0]]), np.array([[0.0, 10.0]])]
    means = [(a + b) / 2 for a, b in itertools.product([0, 0.5, 0.5, 1], [0, 5, 5, 10])]
    (found,) = stratified(samples, lambda means: np.mean(means, axis=0), 20_000)
    assert found.mean == 2.75
    assert (found.low, found.high) == (min(means), max(means))  # each end has 1/16 of the draws
    # Seeds are drawn for all methods alike, so that ranks which all seeds have are certain.
    two = [np.vstack([one, one + 0.1]) for one in samples]
    assert stratified(two, mean_ranks, 500) == [(2, 2, 2), (1, 1, 1)]


def fake_problem(folder, rows):
    return scan(write(folder, rows, tasks=20, seeds=6))


def test_the_tables_say_who_is_first(tmp_path):
    first = [Row("base", late=0.7), Row("swr", late=0.9), Row("cbp", late=0.8)]
    second = [Row("base", late=0.85), Row("swr", late=0.8), Row("cbp", late=0.6)]
    found = board(
        {
            "one": [fake_problem(tmp_path / "one", first)],
            "two": [fake_problem(tmp_path / "two", second[:2]), fake_problem(tmp_path / "more", second[2:])],
        }
    )
    ranking, late, area, chosen = tables(found)
    assert [row["method"] for row in ranking.numbers] == ["swr", "base", "cbp"]
    assert [row["rank_late"] for row in ranking.numbers] == [1.5, 2, 2.5]
    assert ranking.numbers[0]["over_base"] == pytest.approx((0.2 - 0.05) / 2, abs=0.01)
    assert ranking.numbers[0]["rank_late_low"] == ranking.numbers[0]["rank_late_high"] == 1.5
    assert [row["two"] for row in late.numbers] == pytest.approx([0.8, 0.85, 0.6], abs=0.01)
    assert area.numbers[1]["one"] == pytest.approx(0.8, abs=0.02)  # from 0.9 to 0.7
    assert chosen.rows[0][0] == supple.SWR.about.label


@pytest.mark.parametrize(
    ("other", "digest", "message"),
    [
        ({"tasks": 10}, "0", r"one: run.tasks is 20 in .*first and 10 in .*second; a leaderboard compares"),
        ({"problem": {"data": "fashion_mnist"}}, "0", "problem.data is 'mnist' in .* and 'fashion_mnist' in"),
        ({"network": {"hidden": 100}}, "0", "network.hidden is 10 in .* and 100 in"),
        ({"optimizer": {"name": "adamw"}}, "0", "optimizer.name is 'sgd' in .* and 'adamw' in"),
        ({}, "1", "the digest of its data is '0' in .* and '1' in"),
    ],
    ids=["tasks", "data", "network", "optimizer", "digest"],
)
def test_runs_that_differ_in_more_than_methods_are_not_compared(tmp_path, other, digest, message):
    first = scan(write(tmp_path / "first", [Row("base", late=0.7)], tasks=20, seeds=3))
    second = scan(write(tmp_path / "second", [Row("swr", late=0.9)], **{"tasks": 20, "seeds": 3, **other}))
    images = second.images.model_copy(update={"digest": digest})
    with pytest.raises(ValueError, match=message):
        board({"one": [first, dataclasses.replace(second, images=images)]})


def test_what_is_not_finished_is_not_compared(tmp_path):
    rows = [Row("base", late=0.7), Row("swr", late=0.9)]
    whole = fake_problem(tmp_path / "whole", rows)
    half = scan(write(tmp_path / "half", [Row("cbp", early=0.9, late=0.6)], tasks=20, seeds=6, done=4))
    with pytest.raises(ValueError, match=r"half is not finished: 4 of 20 tasks of 6 of 6 runs; let it go on, or leave"):
        board({"one": [whole, half]})


def test_of_two_folders_with_one_method_the_later_counts(tmp_path):
    rows = [Row("base", late=0.7), Row("swr", late=0.9)]
    first = fake_problem(tmp_path / "first", rows)
    later = scan(write(tmp_path / "later", [Row("swr", late=0.3)], tasks=20, seeds=3))
    late = tables(board({"one": [first, later]}))[1]
    assert {row["method"]: row["one"] for row in late.numbers} == pytest.approx({"base": 0.7, "swr": 0.3}, abs=0.02)


def test_methods_without_a_common_seed_are_not_compared(tmp_path):
    first = fake_problem(tmp_path / "first", [Row("base"), Row("swr")])
    other = scan(write(tmp_path / "other", [Row("cbp", seeds=(7, 8))], tasks=20, seeds=9))
    with pytest.raises(ValueError, match="one: there is no seed that all methods have"):
        board({"one": [first, other]})


def test_methods_that_not_all_problems_have_are_named(tmp_path):
    two = fake_problem(tmp_path / "two", [Row("base"), Row("swr")])
    three = fake_problem(tmp_path / "three", [Row("base"), Row("swr"), Row("cbp")])
    assert tables(board({"one": [two]}))[0].note.endswith("of a transformer.")
    assert tables(board({"one": [two], "two": [three]}))[0].note.endswith("Not on all problems, and left out: CBP.")


def test_a_class_that_is_not_here_has_no_cost(tmp_path):
    rows = [Row("base", late=0.7), Row("mine", kind="nowhere:Mine", late=0.9)]
    assert [row[-1] for row in tables(board({"one": [fake_problem(tmp_path, rows)]}))[0].rows] == ["–", "–"]


def test_the_note_says_how_many_seeds_all_methods_have(tmp_path):
    rows = [Row("base", late=0.7), Row("swr", late=0.9)]
    folders = [scan(write(tmp_path / str(n), [row], tasks=20, seeds=n)) for n, row in zip((3, 5), rows, strict=True)]
    assert "over 1 problem of 3 seeds;" in tables(board({"one": folders}))[0].note
    more = [scan(write(tmp_path / "more", rows, tasks=20, seeds=6))]
    assert "over 2 problems of 3 to 6 seeds;" in tables(board({"one": folders, "two": more}))[0].note


def test_a_method_is_added_where_there_are_others(tmp_path):
    known = leaderboard.problems()
    for name in ("gpt_sgd", "mlp10_adam"):
        write(tmp_path / name / "final", [Row("base"), Row("swr")], tasks=20, seeds=3)
    assert leaderboard.of_folder(tmp_path) == ["gpt_sgd", "mlp10_adam"]
    out = tmp_path / "out"
    leaderboard.check_comparable(known, ["mine", "base"], None, out)
    with pytest.raises(StudyError, match=r"--problems: on .* there would be mine and no other method"):
        leaderboard.check_comparable(known, ["mine"], tmp_path, out)
    with pytest.raises(ValueError, match=r"mlp10_adam: problem.data is 'mnist' in .* and 'mnist10k' in what would be"):
        leaderboard.check_comparable({"mlp10_adam": known["mlp10_adam"]}, ["mine"], tmp_path, out)
    kept = Path(__file__).parents[3] / "results/leaderboard"
    leaderboard.check_comparable({name: known[name] for name in ("mlp10_adam", "gpt_sgd")}, ["mine"], kept, out)
    command = (
        "leaderboard",
        "--problems",
        "mlp100_sgd",
        "--methods",
        "swr",
        "--beside",
        tmp_path,
        "--out",
        tmp_path / "o",
    )
    result = run(*command)
    assert result.exit_code == 1
    assert "on mlp100_sgd there would be swr and no other method" in words(result)
    assert not (tmp_path / "o").exists()


def test_the_plan_counts_the_runs_of_both_stages(tmp_path, monkeypatch):
    monkeypatch.setattr(PermutedProblem, "rate", lambda *unused: time.sleep(0.2) or 1000.0)
    out = tmp_path / "out"
    options = ("--methods", "base,swr", "--tasks", 1, "--processes", 1, "--out", out)
    result = run("leaderboard", "--plan", "--problems", "mlp10_sgd,mlp100_sgd", *options)
    assert result.exit_code == 0, result.output
    # 2 methods at 6 settings x 3 seeds and at one x 10 seeds, of 333 batches of 30.
    assert "mlp10_sgd: 56 runs, about 19 s" in words(result)
    assert "All: about 37 s with 1 process." in words(result)
    assert "Other programs keep this machine busy" in words(result)
    assert not out.exists()


@pytest.mark.slow
def test_the_command_trains_ranks_and_adds_a_method(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_method.py").write_text(
        "import supple\n"
        "from supple.methods.settings import About\n"
        "class Mine(supple.L2):\n"
        "    about = About('mine', 'Mine', 'mine', '#777777', '#999999', ('l2',), 'here', ranges={'l2': (1e-3, 0.1)})\n"
    )
    few = ("leaderboard", "--problems", "mlp10_sgd", "--seeds", 2, "--tasks", 1)
    result = run(*few, "--methods", "base,scratch,swr", "--out", "first")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "first/leaderboard.svg").exists()
    added = run(*few, "--methods", "own_method:Mine", "--out", "second", "--beside", "first")
    assert added.exit_code == 0, added.output
    for name, methods in (("first", {"base", "scratch", "swr"}), ("second", {"base", "scratch", "swr", "mine"})):
        with (tmp_path / name / "ranking.csv").open() as file:
            assert {row["method"] for row in csv.DictReader(file)} == methods
    tuned = scan(tmp_path / "second/mlp10_sgd/tuning")
    assert len(tuned.runs) == 6 * 3
    assert all(1e-3 <= value <= 0.1 for value in tuned.runs["l2"])
    again = run(*few, "--methods", "own_method:Mine", "--out", "second", "--no-run", "--beside", "first")
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"l3": (0.1, 1)}, "about.ranges of .*:Mine: l3 is no setting"),
        ({"l2": ()}, r"about.ranges of .*:Mine: l2 is \(\); it has to be \(lowest, highest\) or several values"),
    ],
)
def test_ranges_that_a_method_cannot_have_are_named(tmp_path, monkeypatch, ranges, message):
    (tmp_path / "ranged.py").write_text(
        "import dataclasses, supple\n"
        "class Mine(supple.L2):\n"
        f"    about = dataclasses.replace(supple.L2.about, name='mine', ranges={ranges!r})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ranged", raising=False)
    with pytest.raises(StudyError, match=message):
        leaderboard.drawn("mine", {"kind": "ranged:Mine"}, 6)


def test_what_is_not_there_is_named(tmp_path):
    result = run("leaderboard", "--problems", "mlp11_sgd", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "did you mean mlp10_sgd" in words(result).lower().replace("'", "")
    result = run("leaderboard", "--no-run", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "no results" in words(result)
    for options, message in (
        (("--beside", tmp_path / "nowhere"), "nowhere has no results of a leaderboard; give some of"),
        (("--problems", ","), "--problems is ','"),
        (("--methods", ""), "--methods is ''; give some, or leave it out"),
    ):
        result = run("leaderboard", *options, "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert message in words(result)
    assert not (tmp_path / "out").exists()


def test_the_page_of_the_documentation_is_of_the_results_that_are_kept():
    root = Path(__file__).parents[3]
    problems = {study.title: name for name, study in leaderboard.problems().items()}
    page = (root / "docs/results/leaderboard.md").read_text(encoding="utf-8")
    for table in tables(leaderboard.collect(problems, [root / "results/leaderboard"])):
        assert table.to_markdown() in page, table.title
