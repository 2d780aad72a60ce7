"""Study files: what they mean, and what is said of mistakes in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supple.lab.study.errors import StudyError
from supple.lab.study.methods import defaults
from supple.lab.study.schema import (
    ClassIncremental,
    Length,
    Measure,
    MeasureAdditions,
    Network,
    Optimizer,
    Permuted,
    ScheduledSGD,
    Transformer,
)
from supple.lab.study.spec import ClassIncrementalStudy, PermutedStudy, Study, expand, from_dict, parse, read
from supple.methods.registry import METHODS

GOOD = """
title = "a study"

[network]
hidden = 20

[optimizer]
step_size = 0.1

[run]
tasks = 3
seeds = 2

[methods.base]

[methods.swr]
frequency = [256, 512]
factor = [1e-6, 1e-5, 1e-4]

[methods.tanh]
kind = "base"
network.activation = "tanh"
optimizer.step_size = [0.05, 0.01]
"""


def test_a_study() -> None:
    study = parse(GOOD, "s.toml")
    assert study.run.seeds == (0, 1)
    assert [column.method for column in study.columns] == ["base"] + ["swr"] * 6 + ["tanh"] * 2
    grid = [(column.settings["frequency"], column.settings["factor"]) for column in study.columns[1:7]]
    assert grid == list(itertools.product([256, 512], [1e-6, 1e-5, 1e-4]))
    assert study.columns[1].point == "frequency=256, factor=1e-06"
    base, *_, first, second = study.columns
    assert (base.network.activation, base.optimizer.step_size, base.point) == ("relu", 0.1, "")
    assert (first.kind, first.network.activation, first.network.hidden) == ("base", "tanh", 20)
    assert (first.optimizer.step_size, second.optimizer.step_size) == (0.05, 0.01)
    # What is not given is as the method has it.
    assert study.columns[1].settings["utility"] == "gradient"


def test_seeds_may_be_listed() -> None:
    assert parse(GOOD.replace("seeds = 2", "seeds = [5, 3]"), "s.toml").run.seeds == (5, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[methods.swr]", "[methods.srw]", r"s.toml: methods.srw: there is no 'srw'. Did you mean swr\?"),
        ('kind = "base"', 'kind = "bace"', r"methods.tanh: there is no 'bace'. Did you mean base\?"),
        ("factor =", "factr =", r"methods.swr: there is no setting 'factr'. Did you mean factor\?.*frequency"),
        ("[256, 512]", "0", "methods.swr: frequency is 0; it has to be a whole number of at least 1"),
        ("[256, 512]", '"often"', "methods.swr: frequency is 'often'; it has to be a number"),
        ("[256, 512]", '512\nutility = "grad"', "utility is 'grad'; it has to be one of 'gradient', 'magnitude'"),
        ('"tanh"', '"tahn"', r"methods.tanh.network.activation: there is no 'tahn'. Did you mean tanh\?"),
        ("network.activation", "network.activaton", r"network.activaton: there is no 'activaton'. Did you mean activ"),
        ("network.activation", "network", r"methods.tanh.network is 'tanh'; it has to be a table"),
        ("tasks = 3", "tasks = 0", "run.tasks is 0: .*greater than or equal to 1"),
        ("tasks = 3", "", "run.tasks is missing"),
        (
            "tasks = 3",
            "tasks = [3, 4]",
            "run.tasks is .*cannot be a grid, because all runs of a study are equally long",
        ),
        ("hidden = 20", "hidden = [20, 30]", r"network.hidden is .*a grid belongs to a method, as in \[methods.base\]"),
        ("step_size = 0.1", "step_size = [0.1]", "optimizer.step_size is .*a grid belongs to a method"),
        ("step_size = 0.1", "stepsize = 0.1", r"optimizer.stepsize: .* Did you mean step_size\?"),
        ("step_size = 0.1", 'name = "adam"', r"optimizer.name: there is no 'adam'. Did you mean adamw\?"),
        ("step_size = 0.1", 'name = "adamw"\nmomentum = 0.9', "momentum is a setting of sgd"),
        ("hidden = 20", 'activation = "crelu"\nhidden = 21', "hidden is 21; with activation 'crelu' it has to be even"),
        ("seeds = 2", "seeds = 0", "run.seeds is 0: .*1 or more|run.seeds: it is 0; give how many seeds, 1 or more"),
        ("seeds = 2", "seeds = [1, 1]", "a seed is given twice"),
        ("seeds = 2", "seeds = []", "the list is empty"),
        (
            "[network]",
            '[problem]\ndata = "minst"\n[network]',
            r"problem.data: there is no 'minst'. Did you mean mnist\?",
        ),
        ("[network]", "[problem]\nbatch_size = [30, 60]\n[network]", "cannot be a grid, because all networks .* see"),
        ("[network]", "[measures]\n[network]", r"measures: there is no 'measures'. Did you mean measure\?"),
        ("seeds = 2", "seeds = [[1], [2]]", r"\[1\] is no seed; a seed is a whole number of 64 bits"),
        ("seeds = 2", "seeds = [99999999999999999999]", "is no seed"),
        ("tasks = 3", "tasks = true", "run.tasks is True"),
        ('kind = "base"', "kind = {a = 1}", r"methods.tanh: there is no {'a': 1}"),
        ("[256, 512]", "[]", "methods.swr.frequency: the list is empty"),
        ("[256, 512]", "[256, 256]", "methods.swr: frequency=256, factor=1e-06 is there twice"),
        ("[network]", "[network", "s.toml: .*line 4"),
    ],
)
def test_mistakes_are_explained(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(StudyError, match=message) as raised:
        parse(GOOD.replace(old, new, 1), "s.toml")
    assert str(raised.value).startswith("s.toml: ")


SECTIONS = [
    ("problem", Permuted),
    ("problem", ClassIncremental),
    ("network", Network),
    ("network", Transformer),
    ("optimizer", Optimizer),
    ("optimizer", ScheduledSGD),
    ("run", Length),
    ("measure", Measure),
    ("measure", MeasureAdditions),
]
WRONG: dict[str, list[Any]] = {
    "switch": ["false", "true", "no", "", 0, 1, 1.0, [True]],
    "number": ["5", "0.5", "", "1e-3", True, False, "nan", "inf", [0.5, 0.5]],
    "word": [1, 0.5, True, ["relu"]],
}


def wrong_settings() -> Iterator[tuple[type[Study], str, str, Any]]:
    """Every setting of every section, with values of another type."""
    for section, kind in SECTIONS:
        whole = (
            ClassIncrementalStudy if kind in (ClassIncremental, Transformer, ScheduledSGD, MeasureAdditions) else None
        )
        for name, one in kind.model_fields.items():
            what = str(one.annotation)
            known = "switch" if "bool" in what else "number" if "int" in what or "float" in what else "word"
            for value in WRONG[known]:
                if not (name in ("seeds", "betas") and isinstance(value, list)):
                    yield whole or PermutedStudy, section, name, value


@pytest.mark.parametrize("kind", [PermutedStudy, ClassIncrementalStudy])
def test_every_setting_takes_its_own_type_only(kind: type[Study]) -> None:
    seen = 0
    for whole, section, name, value in wrong_settings():
        if whole is not kind:
            continue
        content: dict[str, Any] = {"title": "a", "run": {"tasks": 2, "seeds": 2}, "methods": {"base": {}}}
        if kind is ClassIncrementalStudy:
            content["problem"] = {"kind": "class_incremental"}
        content[section] = {**content.get(section, {}), name: value}
        with pytest.raises(StudyError, match=f"{section}\\.{name}|{section}: "):
            from_dict(content, "s.toml")
        seen += 1
    assert seen > 100


def test_every_setting_of_a_method_takes_its_own_type_only() -> None:
    seen = 0
    # A study refuses the others, whatever they are set to.
    for method in [name for name, kind in METHODS.items() if not kind.loops_only]:
        for name, default in defaults(method).items():
            known = "switch" if isinstance(default, bool) else "word" if isinstance(default, str) else "number"
            for value in WRONG[known]:
                grid = value if isinstance(value, list) else [value]
                content = {"title": "a", "run": {"tasks": 2, "seeds": 2}, "methods": {method: {name: [*grid, default]}}}
                if isinstance(value, list) and known != "word":
                    content["methods"] = {method: {name: [value]}}
                with pytest.raises(StudyError, match=f"methods.{method}: {name} is "):
                    from_dict(content, "s.toml")
                seen += 1
    assert seen > 100


def test_whole_numbers_may_be_written_with_a_point() -> None:
    text = GOOD.replace("hidden = 20", "hidden = 2e1").replace("tasks = 3", "tasks = 3.0").replace("= 2\n", "= 2.0\n")
    assert parse(text, "s.toml") == parse(GOOD, "s.toml")
    with pytest.raises(StudyError, match=r"network.hidden is 2.5"):
        parse(GOOD.replace("hidden = 20", "hidden = 2.5"), "s.toml")


def test_a_mark_of_the_order_of_bytes_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(GOOD, encoding="utf-8-sig")
    assert (tmp_path / "s.toml").read_bytes().startswith(b"\xef\xbb\xbf")
    assert read(tmp_path / "s.toml") == parse(GOOD, "s.toml")


def test_no_methods() -> None:
    with pytest.raises(StudyError, match="methods"):
        parse(GOOD[: GOOD.index("[methods.base]")], "s.toml")
    with pytest.raises(StudyError, match=r"base: there is no setting 'factor'\. base has no settings"):
        parse(GOOD.replace("[methods.base]", "[methods.base]\nfactor = 1"), "s.toml")


def test_grids() -> None:
    points = expand({"a": [1, 2], "b": 3, "c": {"d": [0.5], "e": "x"}})
    assert [point.values for point in points] == [
        {"a": 1, "b": 3, "c": {"d": 0.5, "e": "x"}},
        {"a": 2, "b": 3, "c": {"d": 0.5, "e": "x"}},
    ]
    assert [point.text for point in points] == ["a=1, c.d=0.5", "a=2, c.d=0.5"]
    assert [point.values for point in expand({"betas": [0.9, 0.99]})] == [{"betas": [0.9, 0.99]}]
    assert len(expand({"betas": [[0.9, 0.99], [0.8, 0.99]]})) == 2
    assert expand({}) == [expand({"b": {}})[0].__class__({}, "")]


def test_equal_settings_are_equal_columns() -> None:
    def texts(old: str, new: str) -> list[str]:
        assert old in GOOD
        return [column.text for column in parse(GOOD.replace(old, new), "s.toml").columns]

    assert texts("[1e-6, 1e-5, 1e-4]", "1") == texts("[1e-6, 1e-5, 1e-4]", "1.0")
    assert texts("[256, 512]", "256") == texts("[256, 512]", "256.0") != texts("[256, 512]", "512")


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(b'title = "\xff"')
    with pytest.raises(StudyError, match=r"s.toml: it is not in UTF-8"):
        read(tmp_path / "s.toml")
