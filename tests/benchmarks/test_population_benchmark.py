"""benchmarks/population.py from end to end with a tiny plan, and its options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import population
import pytest
import timing
from rich.console import Console

from supple.methods.registry import METHODS

TINY = "--width 10 --optimizer sgd --method redo --repeats 2 --seconds 0.05 --replicas 4 --settings 2 --images 900"


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    options = population.parse(TINY.split())
    options.loops, options.footprint, options.scaling = ["plain", "careful"], None, [2]
    return population.run(options)


@pytest.mark.slow
def test_rates_and_ratios_fit_together(tiny: dict[str, Any]) -> None:
    base, redo = tiny["engine"]
    plain, careful = tiny["contenders"]
    assert (base["method"], redo["method"], plain["name"], careful["name"]) == ("base", "redo", "plain", "careful")
    assert base["workers"] == plain["workers"] == tiny["machine"]["cores"] == len(timing.cores())
    assert base["replicas"] == 4
    assert redo["action_share"] == 1 / 8
    for n in range(2):
        steps = base["steps_per_second"]["values"][n]
        assert base["gflops"]["values"][n] == pytest.approx(steps * population.step_flops(10) / 1e9)
        assert base["of_peak"]["values"][n] == pytest.approx(base["gflops"]["values"][n] / tiny["peak"]["values"][n])
        assert plain["engine_over"]["values"][n] == pytest.approx(steps / plain["steps_per_second"]["values"][n])
        assert redo["overhead"]["values"][n] == pytest.approx(steps / redo["steps_per_second"]["values"][n] - 1)
    assert set(base["overhead"]["values"]) == {0.0}
    assert redo["settings"] == {"frequency": 8, "threshold": 1e-2}
    # Weights and biases of 784-100-100-100-10, for two networks and two tasks.
    (scaling,) = tiny["scaling"]
    assert (scaling["replicas"], scaling["parameters"]) == (2, 4 * 2 * (785 * 100 + 2 * 101 * 100 + 1010))
    assert len(scaling["seconds"]) == 2


@pytest.mark.slow
def test_table_shows_every_contender(tiny: dict[str, Any]) -> None:
    console = Console(width=80)
    footprint = {"hidden": 100, "method": "swr", "times_the_parameters": 2.5} | tiny["scaling"][0]
    with console.capture() as capture:
        population.show(tiny | {"footprints": [footprint]}, console)
    text = capture.get()
    for part in ("base", "ReDo", "plain loop", "careful loop", "engine is", "two tasks", "h = 100"):
        assert part in text
    assert "…" not in text


@pytest.mark.slow
@pytest.mark.parametrize("where", ["file", "stdout"])
def test_numbers_are_written_as_json(
    where: str, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(population, "run", lambda options, tick: tiny)
    file = tmp_path / "bench.json"
    population.main([*TINY.split(), "--json", str(file) if where == "file" else "-"])
    out, err = capsys.readouterr()
    found = json.loads(file.read_text() if where == "file" else out)
    assert found == json.loads(json.dumps(tiny))
    assert {"cpu", "cores", "torch", "python", "supple"} <= set(found["machine"])
    assert "plain loop" in (out if where == "file" else err)


def test_interruption_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(population, "run", interrupted)
    with pytest.raises(SystemExit, match="Stopped"):
        population.main([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--method swt", "invalid choice: 'swt'"),
        ("--replicas 5", "multiple of --settings, 32"),
        ("--settings 64 --scaling", "--settings is 64; with --scaling it has to divide 32"),
        ("--repeats 0", "--repeats is 0; it has to be above 0"),
        ("--width 10 0", "--width is 0"),
        ("--precision half", "invalid choice: 'half'"),
        ("--precision tf32", "tf32 is for GPUs"),
        ("--graphs", "--graphs are replayed on GPUs"),
    ],
)
def test_wrong_options_are_explained(options: str, message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as error:
        population.parse(options.split())
    assert error.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_options() -> None:
    assert population.parse([]).method == ["base", *METHODS]
    assert population.parse(["--quick"]).repeats < population.parse([]).repeats
    assert population.parse(["--quick", "--repeats", "7"]).repeats == 7
    chosen = population.parse(["--optimizer", "adamw", "--method", "redo", "--scaling"])
    assert (chosen.optimizer, chosen.method) == (["sgd", "adamw"], ["base", "redo"])
    assert chosen.scaling == (32, 64, 128, 256)


@pytest.mark.parametrize(("hidden", "expected"), [(10, (8, 32)), (100, (2, 32)), (1000, (1, 2)), (3000, (1, 1))])
def test_parts_of_a_population(hidden: int, expected: tuple[int, int]) -> None:
    # Weights take 33 kB, 0.4 MB, 11 MB and 82 MB a network, of which 26 MB are trained together.
    options = population.parse([])
    assert population.part(options, hidden) == expected
    options.device = "cuda"
    assert population.part(options, hidden) == (8, 32)


@pytest.mark.slow
def test_quick_from_end_to_end(capsys: pytest.CaptureFixture) -> None:
    population.main(["--quick", "--json", "-"])
    for row in json.loads(capsys.readouterr().out)["contenders"]:
        assert row["engine_over"]["median"] > 1
