"""Verdicts follow effects planted in folders of results."""

import json
from dataclasses import replace

import pytest
from compared import measured_of
from fake_results import Row, write

from supple.lab.report.facts import going_on
from supple.lab.report.verdicts import Verdict
from supple.lab.studies.claims import VARIANTS, check_claims
from supple.lab.studies.paper import SETTINGS, setting_of
from supple.lab.study import shipped
from supple.lab.study.results import MANIFEST
from supple.lab.study.spec import read

YES, NO, OPEN = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.NOT_ENOUGH


def setting(tmp_path, key, rows, **options):
    """A folder of one of the paper's settings, measured."""
    described = SETTINGS[key]
    network = {"hidden": described.values["network.hidden"], "layer_norm": described.values["network.layer_norm"]}
    optimizer = {"large_momentum": {"momentum": 0.9}, "large_adam": {"name": "adamw", "step_size": 5e-4}}.get(key, {})
    name = f"{key}-{len(list(tmp_path.iterdir()))}"
    options = {"name": described.study, "network": network, "optimizer": optimizer, **options}
    return measured_of(write(tmp_path / name, rows, **options))


def ladder(swr=0.90, cbp=0.88, redo=0.88, base=0.80, start=0.90):
    """SWR, CBP, ReDo and base that end at these accuracies."""
    return [Row("base", start, base), Row("cbp", start, cbp), Row("redo", start, redo), Row("swr", start, swr)]


def verdict(claim, folders):
    (found,) = (one for one in check_claims(folders) if one.id == claim)
    return found


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ladder(), YES),
        (ladder(swr=0.88, cbp=0.90), NO),
        (ladder(swr=0.88), NO),  # as good as, not better
        (ladder(swr=0.85, cbp=0.82, redo=0.82), NO),  # better, but it loses plasticity
        (ladder(swr=0.95), YES),
    ],
)
def test_c1(tmp_path, rows, expected):
    found = verdict("C1", [setting(tmp_path, "small", rows)])
    assert found.verdict is expected
    assert len(found.evidence) == 3
    assert found.scale == {"small network": "60 of the paper's 1,000 tasks"}


def test_a_method_exactly_two_points_better(tmp_path):
    rows = [Row("cbp", 0.9, 0.9), Row("redo", 0.9, 0.9), Row("swr", 0.92, 0.92)]
    found = verdict("C1", [setting(tmp_path, "small", rows, own_noise=0.0)])
    gain = found.evidence[0]
    assert gain.statement.words == "final accuracy, SWR − CBP"
    # Accuracies are stored as 32-bit floats.
    assert gain.interval == pytest.approx((0.02, 0.02, 0.02), abs=1e-6)
    assert found.verdict is YES


def test_too_few_runs_say_how_many(tmp_path):
    rows = ladder(swr=0.887)
    found = verdict("C1", [setting(tmp_path, "small", rows, seeds=3, own_noise=0.03)])
    assert found.verdict is OPEN
    (missing,) = found.missing
    assert missing.what.startswith("about ")
    assert missing.what.endswith("seeds in the small network")
    folder = tmp_path / "small-0"
    assert missing.command == f"supple run permuted_mnist/small --out {folder} --seeds {missing.what.split()[1]}"
    alone = verdict("C1", [setting(tmp_path, "small", rows, seeds=1)])
    assert alone.verdict is OPEN
    assert alone.missing[0].what == "more seeds in the small network"


def test_runs_of_a_few_tasks_decide_nothing(tmp_path):
    assert verdict("C1", [setting(tmp_path, "small", ladder(), tasks=9)]).evidence == []
    assert len(verdict("C1", [setting(tmp_path, "small", ladder(), tasks=10)]).evidence) == 3


def test_missing_methods_and_settings_are_named(tmp_path):
    found = verdict("C1", [setting(tmp_path, "small", ladder()[2:])])
    assert found.verdict is OPEN
    assert [one.what for one in found.missing] == ["CBP in the small network"]
    found = verdict("C2", [setting(tmp_path, "small_layer_norm", ladder())])
    assert found.verdict is OPEN
    assert [one.command for one in found.missing] == ["supple run permuted_mnist/large_layer_norm"]
    # What contradicts a claim does so whatever else is missing.
    assert verdict("C2", [setting(tmp_path, "small_layer_norm", ladder(swr=0.8))]).verdict is NO


def test_c2_needs_both_networks(tmp_path):
    small = setting(tmp_path, "small_layer_norm", ladder())
    assert verdict("C2", [small, setting(tmp_path, "large_layer_norm", ladder())]).verdict is YES
    assert verdict("C2", [small, setting(tmp_path, "large_layer_norm", ladder(redo=0.92))]).verdict is NO


@pytest.mark.parametrize(
    ("rows", "expected"), [(ladder(swr=0.881), YES), (ladder(swr=0.90), NO), (ladder(redo=0.90), NO)]
)
def test_c3(tmp_path, rows, expected):
    assert verdict("C3", [setting(tmp_path, "large", rows)]).verdict is expected


def test_c3_counts_momentum_and_adam_where_they_are(tmp_path):
    large = setting(tmp_path, "large", ladder(swr=0.88))
    momentum = setting(tmp_path, "large_momentum", ladder(swr=0.93))
    found = verdict("C3", [large, momentum])
    assert found.verdict is NO
    assert {one.statement.place for one in found.evidence} == {"large network", "large network, momentum"}


@pytest.mark.parametrize(("end", "expected"), [(0.85, YES), (0.95, NO)])
def test_c4(tmp_path, end, expected):
    folders = [setting(tmp_path, "small", ladder()), setting(tmp_path, "large", ladder(base=end))]
    assert verdict("C4", folders).verdict is expected
    assert verdict("C4", folders[:1]).verdict is OPEN


def eight(best="gradient, threshold, resample", gain=0.02):
    rows = []
    for variant in VARIANTS:
        words = ", ".join(variant.values())
        end = 0.9 + gain * (words == best)
        name = "swr" if not rows else "swr_" + "_".join(variant.values())
        rows.append(Row(name, 0.9, end, kind="swr", settings=variant))
    return rows


def test_c5(tmp_path):
    assert len(VARIANTS) == 8
    large = setting(tmp_path, "large", eight())
    found = verdict("C5", [large])
    assert (found.verdict, len(found.evidence)) == (YES, 7)
    # Four of them in the small network, as in the paper, count too.
    small = setting(tmp_path, "small", eight("gradient, proportional, resample")[:4])
    assert verdict("C5", [large, small]).verdict is NO
    assert verdict("C5", [setting(tmp_path, "large", eight("magnitude, threshold, mean"))]).verdict is NO
    partial = verdict("C5", [setting(tmp_path, "large", eight()[:-1])])
    assert partial.verdict is OPEN
    assert [one.what for one in partial.missing] == ["SWR with magnitude/proportional/mean in the large network"]


def test_c5_is_about_the_runs_that_have_the_variants(tmp_path):
    """Longer runs of SWR as it usually is, beside them, are no reason to say that variants are missing."""
    usual = setting(tmp_path, "large", ladder(), tasks=120)
    found = verdict("C5", [usual, setting(tmp_path, "large", eight())])
    assert (found.verdict, len(found.evidence), found.missing) == (YES, 7, [])


@pytest.mark.parametrize(("size", "expected"), [(0.01, YES), (0.5, NO)])
def test_c6(tmp_path, size, expected):
    rows = [
        Row("cbp", 0.9, 0.9, disturbance=0.1),
        Row("redo", 0.9, 0.9, disturbance=0.2),
        Row("swr", 0.9, 0.9, disturbance=size),
    ]
    folders = [setting(tmp_path, key, rows) for key in ("small_layer_norm", "large_layer_norm")]
    found = verdict("C6", folders)
    assert (found.verdict, len(found.evidence)) == (expected, 12)
    rows[0].disturbance = None
    found = verdict("C6", [setting(tmp_path, "small_layer_norm", rows), folders[1]])
    if expected is YES:
        assert found.verdict is OPEN
        assert "of CBP change, measured in the small network, layer norm" in found.missing[0].what


def test_the_best_of_a_grid_is_chosen_on_other_seeds(tmp_path):
    grid = [({"factor": 10.0**-k}, -0.02 * abs(k - 5)) for k in range(3, 8)]
    rows = [*ladder()[:3], Row("swr", 0.9, 0.9, grid=grid)]
    found = verdict("C1", [setting(tmp_path, "small", rows)])
    assert found.verdict is YES
    assert "SWR: best of 5 settings, each seed at the one that other seeds chose" in found.evidence[0].statement.note
    assert found.evidence[0].interval.mean == pytest.approx(0.02, abs=0.003)


def test_diverged_runs_count_and_are_shown(tmp_path):
    rows = [*ladder()[:3], Row("swr", 0.9, 0.9, diverged=(0, 1, 2))]
    found = verdict("C1", [setting(tmp_path, "small", rows)])
    assert found.verdict is not YES
    assert all("SWR: 3 of 6 runs diverged" in one.statement.note for one in found.evidence[:2])
    assert len(found.evidence[0].statement.differences) == 6


def test_folders_are_taken_together(tmp_path):
    one = setting(tmp_path, "small", ladder()[:2])
    other = setting(tmp_path, "small", ladder()[2:])
    assert verdict("C1", [one, other]).verdict is YES
    # The same runs twice are not twice as many runs.
    found = verdict("C1", [one, other, other])
    assert all(len(judged.statement.differences) == 6 for judged in found.evidence)


def test_a_sweep_beside_a_full_study_takes_no_seeds_away(tmp_path):
    full = setting(tmp_path, "small", ladder(swr=0.89), seeds=6)
    grid = [({"factor": 10.0**-k}, 0.05 * (k == 5)) for k in range(3, 7)]
    sweep = setting(tmp_path, "small", [Row("swr", 0.9, 0.89, grid=grid)], seeds=3)
    for folders in ([full, sweep], [sweep, full]):
        found = verdict("C1", folders)
        assert all(len(judged.statement.differences) == 6 for judged in found.evidence)
        assert all("best of" not in judged.statement.note for judged in found.evidence)


def test_runs_of_different_length_or_step_size_are_not_compared(tmp_path):
    long = setting(tmp_path, "small", ladder()[:2], tasks=80)
    short = setting(tmp_path, "small", ladder()[2:], tasks=40)
    assert verdict("C1", [long, short]).verdict is OPEN
    other = setting(tmp_path, "small", ladder(swr=0.7), optimizer={"step_size": 0.1}, tasks=40)
    assert verdict("C1", [setting(tmp_path, "small", ladder()), other]).verdict is YES


def test_all_claims_are_there(tmp_path):
    found = check_claims([setting(tmp_path, "small", ladder())])
    assert [claim.id for claim in found] == [f"C{k}" for k in range(1, 8)]
    assert all(claim.text and claim.tested for claim in found)
    for claim in found:
        assert claim.verdict is not OPEN or all(one.what and one.command for one in claim.missing)


def test_a_command_that_goes_on_keeps_what_it_was_run_with(tmp_path):
    folder = write(tmp_path / "x", ladder(), tasks=20, seeds=2, scaled={"seeds": [[0, 1, 2], [0, 1]]})
    manifest = json.loads((folder / MANIFEST).read_text())
    command = "supple run my.toml --seeds 2 --data-dir 'my images' --methods=swr --tasks 20 --out there --no-verify"
    manifest["sessions"][-1]["command"] = command
    (folder / MANIFEST).write_text(json.dumps(manifest))
    measured = measured_of(folder)
    expected = "supple run my.toml --data-dir 'my images' --tasks 20 --no-verify"
    assert going_on(measured) == f"{expected} --seeds 2 --out {folder}"
    assert going_on(measured, seeds=False) == f"{expected} --out {folder}"
    del manifest["sessions"]
    manifest["scaled"] = {"tasks": [1000, 20], "data": ["mnist", "mnist10k"], "seeds": [[0, 1, 2], [0, 2]]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    expected = "supple run permuted_mnist/small --tasks 20 --data mnist10k --seeds 0,2"
    assert going_on(measured_of(folder)) == f"{expected} --out {folder}"


def test_the_studies_that_are_named_come_with_supple():
    variants = {f"permuted_mnist/swr_variants_{size}" for size in ("small", "large")}
    assert {described.study for described in SETTINGS.values()} | variants <= set(shipped.names())


@pytest.mark.parametrize("key", SETTINGS)
def test_the_studies_run_what_the_settings_say(key):
    """Each study's own network and optimizer, as rows of results, are of the setting that names it."""
    study = read(shipped.find(SETTINGS[key].study)[0])
    base = next(column for column in study.columns if column.method == "base")
    given = {f"network.{name}": value for name, value in base.network.model_dump().items()}
    given |= {f"optimizer.{name}": value for name, value in base.optimizer.model_dump().items()}
    assert setting_of(given, study.problem.kind) == key


@pytest.mark.parametrize(
    "changes",
    [
        {"network.depth": 1},
        {"network.layer_norm": "before"},
        {"network.skip": "after"},
        {"network.activation": "tanh"},
        {"network.hidden": 50},
        {"optimizer.name": "rmsprop"},
    ],
)
def test_other_networks_are_of_no_setting(changes):
    given = {**SETTINGS["large_layer_norm"].values, "optimizer.momentum": 0.0, "optimizer.step_size": 0.1}
    assert setting_of(given, "permuted") == "large_layer_norm"
    assert setting_of({**given, **changes}, "permuted") is None
    assert setting_of(given, "class_incremental") is not None
    assert setting_of(given, "another") is None


def test_the_precision_of_products_that_older_results_do_not_have_is_that_of_their_study(tmp_path):
    one, other = (setting(tmp_path, "small", rows) for rows in (ladder()[:2], ladder()[2:]))
    without = [name for name in one.runs.columns if name != "network.precision"]
    older = replace(one, runs=one.runs.select(without), settings=tuple(n for n in one.settings if n in without))
    assert verdict("C1", [older, other]).verdict is YES
