"""The studies that come with supple, against the tables of arXiv 2508.00212."""

from __future__ import annotations

import math

import pytest

from supple.lab.population.class_incremental import RESETS
from supple.lab.study import shipped
from supple.lab.study.errors import StudyError
from supple.lab.study.spec import ClassIncrementalStudy, Study, read
from supple.methods import registry

# hidden, layer norm, optimizer, step size; L2; shrink and perturb (L2, variance); CBP (maturity, rate); ReDo
# (frequency, threshold); SWR (frequency, factor).
MAIN = {
    "small": (10, None, "sgd", 0.05, 1e-4, (1e-4, 1e-9), (5, 1e-3), (8, 1e-2), (2048, 1e-6)),
    "small_layer_norm": (10, "after", "sgd", 0.1, 1e-4, (1e-4, 1e-10), (1, 1e-5), (8192, 1.0), (2048, 1e-5)),
    "large": (100, None, "sgd", 0.05, 1e-4, (1e-4, 1e-7), (500, 1e-4), (16, 1e-4), (2048, 1e-5)),
    "large_layer_norm": (100, "after", "sgd", 0.1, 1e-5, (1e-5, 1e-7), (1, 1e-2), (8, 0.1), (2048, 1e-5)),
    "large_momentum": (100, None, "sgd", 0.005, 1e-4, (1e-4, 1e-7), (1, 1e-3), (8, 1e-3), (2048, 1e-6)),
    "large_adam": (100, None, "adamw", 5e-4, 1e-5, (1e-5, 1e-9), (1, 1e-3), (16, 1e-5), (2048, 1e-6)),
}

# pruning, utility, reinit: frequency, factor.
LARGE_VARIANTS = {
    ("threshold", "gradient", "resample"): (2048, 1e-5),
    ("threshold", "gradient", "mean"): (2048, 1e-3),
    ("threshold", "magnitude", "resample"): (2048, 1e-4),
    ("threshold", "magnitude", "mean"): (1024, 0.1),
    ("proportional", "gradient", "resample"): (4096, 0.4),
    ("proportional", "gradient", "mean"): (512, 0.2),
    ("proportional", "magnitude", "resample"): (8192, 0.8),
    ("proportional", "magnitude", "mean"): (8192, 0.8),
}
SMALL_VARIANTS = {
    ("threshold", "gradient", "resample"): (2048, 1e-6),
    ("threshold", "gradient", "mean"): (2048, 1e-3),
    ("proportional", "gradient", "resample"): (4096, 0.4),
    ("proportional", "gradient", "mean"): (512, 0.1),
    # The paper states none of these.
    ("threshold", "magnitude", "resample"): (8192, 1e-4),
    ("threshold", "magnitude", "mean"): (1024, 1e-3),
    ("proportional", "magnitude", "resample"): (8192, 0.8),
    ("proportional", "magnitude", "mean"): (4096, 0.8),
}
UTILITIES = {
    ("cbp", "activation"): (10, 1e-4),
    ("redo", "activation"): (16, 1e-4),
    ("cbp", "contribution"): (500, 1e-4),
    ("redo", "contribution"): (16, 1e-4),
    ("cbp", "gradient"): (5, 1e-4),
    ("redo", "gradient"): (32, 1e-5),
    ("cbp", "magnitude"): (500, 1e-2),
    ("redo", "magnitude"): (32, 1e-3),
}


def study(name: str) -> Study:
    return read(shipped.find(f"permuted_mnist/{name}")[0])


PERMUTED = [name for name in shipped.names() if name.startswith("permuted_mnist/")]
INCREMENTAL = [
    name
    for name in shipped.names()
    if name.startswith("incremental_cifar100/") and name != "incremental_cifar100/resnet"
]


@pytest.mark.parametrize("name", PERMUTED)
def test_each_of_permuted_mnist_can_be_read(name: str) -> None:
    found = read(shipped.find(name)[0])
    assert found.run.tasks == 1000
    assert found.problem.data == "mnist"
    assert found.problem.batch_size == 30
    assert (found.network.depth, found.network.activation) == (3, "relu")


@pytest.mark.parametrize("name", ["methods", "sweeps/methods"])
def test_studies_of_all_methods_leave_none_out(name: str) -> None:
    every = {name for name, method in registry.METHODS.items() if not method.loops_only}
    assert {column.kind for column in study(name).columns} == every | {"base"}


@pytest.mark.parametrize("name", MAIN)
def test_main_settings(name: str) -> None:
    hidden, norm, optimizer, step_size, l2, perturb, cbp, redo, swr = MAIN[name]
    found = study(name)
    assert (found.network.hidden, found.network.layer_norm) == (hidden, norm)
    assert (found.optimizer.name, found.optimizer.step_size) == (optimizer, step_size)
    assert found.optimizer.momentum == (0.9 if name == "large_momentum" else 0)
    assert found.optimizer.betas == (0.9, 0.999)
    settings = {column.method: column.settings for column in found.columns}
    assert list(settings) == ["base", "l2", "shrink_and_perturb", "cbp", "redo", "swr"]
    assert settings["l2"] == {"l2": l2}
    assert tuple(settings["shrink_and_perturb"].values()) == perturb
    assert (settings["cbp"]["maturity"], settings["cbp"]["replacement_rate"]) == cbp
    assert settings["cbp"]["utility"] == "contribution"
    assert (settings["redo"]["frequency"], settings["redo"]["threshold"]) == redo
    assert settings["redo"]["utility"] == "activation"
    assert (settings["swr"]["frequency"], settings["swr"]["factor"]) == swr
    assert [settings["swr"][name] for name in ("utility", "pruning", "reinit")] == ["gradient", "threshold", "resample"]
    assert found.measure.disturbances > 0


@pytest.mark.parametrize(("name", "expected"), [("small", SMALL_VARIANTS), ("large", LARGE_VARIANTS)])
def test_variants(name: str, expected: dict[tuple[str, ...], tuple[float, float]]) -> None:
    base, *columns = study(f"swr_variants_{name}").columns
    assert base.kind == "base"
    found = {
        tuple(column.settings[word] for word in ("pruning", "utility", "reinit")): (
            column.settings["frequency"],
            column.settings["factor"],
        )
        for column in columns
    }
    assert found == expected


def test_unit_utilities() -> None:
    found = {}
    for column in study("unit_utilities").columns[1:]:
        names = ("maturity", "replacement_rate") if column.kind == "cbp" else ("frequency", "threshold")
        found[column.kind, column.settings["utility"]] = tuple(column.settings[name] for name in names)
    assert found == UTILITIES


def test_architectures_and_sizes() -> None:
    activations = {c.network.activation: c.optimizer.step_size for c in study("activations").columns}
    assert activations == {
        "relu": 0.05, "leaky_relu": 0.05, "tanh": 0.01, "sigmoid": 0.05, "silu": 0.05, "gelu": 0.01,
    }  # fmt: skip
    architectures = {
        (c.network.activation, c.network.skip, c.network.layer_norm): c.optimizer.step_size
        for c in study("architectures").columns
    }
    assert architectures == {
        ("relu", None, None): 0.05,
        ("crelu", None, None): 0.05,
        ("relu", "after", None): 0.1,
        ("relu", None, "after"): 0.1,
    }
    assert [c.optimizer.step_size for c in study("step_sizes").columns] == [0.1, 0.05, 0.01, 0.005, 0.001]
    assert [c.network.hidden for c in study("sizes").columns] == [10, 100, 1000]
    assert {c.optimizer.step_size for c in study("sizes").columns} == {0.05}


def powers(low: int, high: int) -> list[float]:
    return [float(f"1e{exponent}") for exponent in range(low, high + 1)]


@pytest.mark.parametrize("name", MAIN)
def test_sweeps_of_the_main_settings(name: str) -> None:
    found, main = study(f"sweeps/{name}"), study(name)
    assert (found.network, found.optimizer) == (main.network, main.optimizer)
    assert len(found.run.seeds) == 10
    methods = found.methods
    assert methods["swr"] == {"frequency": [2**k for k in range(8, 14)], "factor": powers(-6, -1)}
    assert methods["cbp"] == {"maturity": [1, 5, 10, 50, 100, 500], "replacement_rate": powers(-6, -1)}
    assert methods["redo"] == {"frequency": [2**k for k in range(3, 9)], "threshold": powers(-5, 0)}
    assert methods["l2"] == {"l2": powers(-8, -3)}
    assert methods["shrink_and_perturb"] == {"l2": MAIN[name][5][0], "variance": powers(-11, -4)}
    assert methods["base"]["optimizer"]["step_size"] == [5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5]


def test_all_sweeps_have_some_1500_points() -> None:
    names = [name for name in PERMUTED if "/sweeps/" in name or name.endswith("extra_large")]
    names.remove("permuted_mnist/sweeps/methods")
    assert sum(len(read(shipped.find(name)[0]).columns) for name in names) == 1469
    for name in names:
        for column in read(shipped.find(name)[0]).columns:
            if column.settings.get("pruning") == "proportional":
                assert column.settings["factor"] in (0.01, 0.05, 0.1, 0.2, 0.4, 0.8)
            assert all(not isinstance(value, float) or math.isfinite(value) for value in column.settings.values())


@pytest.mark.parametrize("name", INCREMENTAL)
def test_each_of_incremental_cifar100_can_be_read(name: str) -> None:
    found = read(shipped.find(name)[0])
    assert isinstance(found, ClassIncrementalStudy)
    problem, network = found.problem, found.network
    assert (problem.data, problem.first, problem.step, problem.epochs, problem.batch_size) == (
        "cifar100",
        5,
        5,
        100,
        90,
    )
    assert (problem.train_images, problem.test_images, problem.validation, problem.restore) == (None, None, 50, True)
    assert (problem.flip, problem.padding, problem.rotation) == (0.5, 4, 15)
    assert found.run.tasks == problem.tasks == 20
    sizes = (network.patch_size, network.depth, network.heads, network.width, network.hidden, network.dropout)
    assert sizes == (4, 8, 12, 384, 1536, 0.1)
    assert network.precision == "float32"
    assert network.reparameterized == name.endswith("reparameterized")
    assert (found.optimizer.step_size, found.optimizer.momentum) == (0.01, 0.9)
    assert found.optimizer.weight_decay == (6e-6 if network.reparameterized else 2e-6)
    assert not found.optimizer.cycle_momentum
    assert found.measure.examples == 1000


@pytest.mark.parametrize("norm", ["regular", "reparameterized"])
def test_rows_and_sweeps_of_incremental_cifar100(norm: str) -> None:
    found = {column.method: column for column in read(shipped.find(f"incremental_cifar100/{norm}")[0]).columns}
    assert list(found) == ["base", "shrink_and_perturb", "reset", "swr", "cbp", "redo"]
    settings = {name: column.settings for name, column in found.items()}
    assert settings["shrink_and_perturb"] == {"l2": 0.0, "variance": 1e-8}
    assert settings["reset"] == {"parts": "network"}
    swr = ("gradient", "threshold", "resample", 128, 5e-4)
    assert tuple(settings["swr"][n] for n in ("utility", "pruning", "reinit", "frequency", "factor")) == swr
    cbp = ("contribution", 10000, 1e-7)
    assert tuple(settings["cbp"][name] for name in ("utility", "maturity", "replacement_rate")) == cbp
    assert tuple(settings["redo"][n] for n in ("utility", "frequency", "threshold")) == ("activation", 128, 5e-4)
    decays = {name: column.optimizer.weight_decay for name, column in found.items()}
    others = 2e-6 if norm == "regular" else 6e-6
    assert decays == {name: 6e-6 if name in ("swr", "cbp", "redo") else others for name in found}
    # Each sweep has the setting of the table among its points.
    points = read(shipped.find(f"incremental_cifar100/sweeps/{norm}")[0]).columns
    assert {column.text for name, column in found.items() if name != "reset"} <= {column.text for column in points}


def test_resnet_of_incremental_cifar100() -> None:
    """Against the configs of the program of Dohare et al."""
    found = read(shipped.find("incremental_cifar100/resnet")[0])
    assert isinstance(found, ClassIncrementalStudy)
    problem, optimizer = found.problem, found.optimizer
    assert (problem.data, problem.first, problem.step, problem.epochs) == ("cifar100", 5, 5, 200)
    assert (problem.batch_size, problem.validation, problem.restore, found.run.tasks) == (90, 50, True, 20)
    assert (optimizer.step_size, optimizer.momentum, optimizer.schedule) == (0.1, 0.9, "steps")
    assert optimizer.weight_decay / optimizer.step_size == pytest.approx(5e-4)
    assert found.network.parameter_count(problem) == 11_173_962 + 4800 + 90 * 513
    settings = {column.method: column.settings for column in found.columns}
    assert math.sqrt(settings["shrink_and_perturb"]["variance"]) == pytest.approx(1e-5)
    assert settings["shrink_and_perturb"]["l2"] == 0
    cbp = [settings["cbp"][name] for name in ("utility", "decay", "maturity", "replacement_rate")]
    assert cbp == ["contribution", 0.99, 1000, 1e-5]
    assert [settings[name]["parts"] for name in ("reset", "reset_head")] == ["network", "head"]


def test_resets_of_incremental_cifar100() -> None:
    columns = read(shipped.find("incremental_cifar100/resets")[0]).columns
    assert {column.settings["parts"] for column in columns if column.kind == "reset"} == set(RESETS)


def test_finding() -> None:
    path, name = shipped.find("permuted_mnist/small")
    assert name == "permuted_mnist/small"
    assert shipped.find(str(path)) == (path, name)
    assert shipped.find("studies/permuted_mnist/small.toml")[1] == name
    for wrong, meant in (
        ("small", r"\w+/small"),
        ("smal", r"\w+/small"),
        ("permuted_mnist/smal", "permuted_mnist/small"),
    ):
        with pytest.raises(StudyError, match=rf"there is no file '{wrong}'.*Did you mean {meant}\?"):
            shipped.find(wrong)


def test_a_file_of_ones_own(tmp_path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text("")
    assert shipped.find(str(own)) == (own, "mine")
