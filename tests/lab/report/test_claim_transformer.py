"""Claim C7, about the vision transformer: verdicts follow effects planted in class-incremental folders."""

import numpy as np
import pytest
from compared import measured_of
from fake_results import NETWORK, PROBLEM, Row, ahead, write, write_additions

from supple.lab.report.verdicts import Says, Verdict
from supple.lab.studies.claims import check_claims
from supple.lab.studies.paper import SETTINGS, incremental_scale, setting_of
from supple.lab.study.schema import ClassIncremental

YES, NO, OPEN = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.NOT_ENOUGH
ALL = (0, 1, 2, 3, 4, 5)


def folder(tmp_path, key, rows, **options):
    """A folder of one of the paper's two transformers, measured."""
    described = SETTINGS[key]
    name = f"{key}-{len(list(tmp_path.iterdir()))}"
    options = {"name": described.study, "additions": 4, "problem": {"epochs": 1}, **options}
    options["network"] = {"reparameterized": described.values["network.reparameterized"], **options.get("network", {})}
    return measured_of(write_additions(tmp_path / name, rows, **options))


def three(swr=0.0, cbp=-0.03, redo=-0.02, diverged=None):
    """SWR, CBP and ReDo this far ahead of training from scratch, and the seeds of each that diverge."""
    gains = {"cbp": cbp, "redo": redo, "swr": swr}
    return [ahead(name, gain, diverged=(diverged or {}).get(name, ())) for name, gain in gains.items()]


def both(tmp_path, rows, **options):
    return [folder(tmp_path, key, rows, **options) for key in ("vit", "vit_reparameterized")]


def claim(folders):
    return next(one for one in check_claims(folders) if one.id == "C7")


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (three(), YES),
        (three(cbp=0.0, redo=0.003), YES),  # at the level of both
        (three(redo=0.02), NO),
        (three(swr=-0.05), NO),
    ],
)
def test_accuracy(tmp_path, rows, expected):
    found = claim(both(tmp_path, rows))
    assert found.verdict is expected
    assert [judged.statement.words for judged in found.evidence] == 2 * [
        "final test accuracy, SWR − CBP",
        "final test accuracy, SWR − ReDo",
    ]
    assert {judged.statement.place for judged in found.evidence} == {"ViT", "ViT, reparameterized layer norm"}
    assert all(judged.statement.says is Says.NOT_BELOW for judged in found.evidence)
    assert all(judged.statement.note == "no run that is compared diverged" for judged in found.evidence)
    assert found.missing == [] or expected is NO


def test_a_method_exactly_two_points_better(tmp_path):
    found = claim([folder(tmp_path, "vit", three(swr=0.02, cbp=0.0, redo=0.01), own_noise=0.0)])
    assert found.evidence[0].interval == pytest.approx((0.02, 0.02, 0.02), abs=1e-6)
    assert found.evidence[1].interval == pytest.approx((0.01, 0.01, 0.01), abs=1e-6)


@pytest.mark.one_in(5)
@pytest.mark.parametrize(
    ("diverged", "shares", "expected"),
    [
        ({"cbp": ALL, "redo": ALL}, [1, 1], YES),
        ({"swr": ALL}, [-1, -1], NO),
        ({"redo": (1,)}, [1 / 6], YES),  # not worse for SWR than if none had
        ({"redo": (1, 2), "swr": (3,)}, [-1 / 6, 1 / 6], OPEN),
        ({"cbp": (1,), "redo": (1,), "swr": (1,)}, [0, 0], YES),
    ],
)
def test_diverging_runs(tmp_path, diverged, shares, expected):
    found = claim(both(tmp_path, three(diverged=diverged)))
    assert found.verdict is expected
    judged = [one for one in found.evidence if "diverging" in one.statement.words]
    assert [float(one.interval.mean) for one in judged] == pytest.approx(2 * shares)
    for one in judged:
        assert one.statement.says is Says.NOT_BELOW
        assert np.isnan(one.interval.low)
        assert "of 6 runs diverged" in one.statement.note
    # A run that diverged counts with an accuracy of 0.
    accuracy = next(one for one in found.evidence if one.statement.words == "final test accuracy, SWR − ReDo")
    gap = 0.02 + (len(diverged.get("redo", ())) * 0.63 - len(diverged.get("swr", ())) * 0.65) / 6
    assert float(accuracy.interval.mean) == pytest.approx(gap, abs=0.01)


def test_what_diverges_in_both_says_nothing_about_accuracy(tmp_path):
    found = claim(both(tmp_path, three(diverged=dict.fromkeys(("swr", "cbp", "redo"), ALL))))
    assert found.verdict is OPEN
    accuracy = [one for one in found.evidence if "accuracy" in one.statement.words]
    assert all(one.verdict is OPEN and len(one.statement.differences) == 0 for one in accuracy)
    assert all(one.statement.note.endswith("without 6 of which both diverged") for one in accuracy)
    found = claim(both(tmp_path, three(diverged=dict.fromkeys(("swr", "cbp"), (2,)))))
    assert [len(one.statement.differences) for one in found.evidence if "accuracy" in one.statement.words] == [5, 6] * 2
    assert float(found.evidence[0].interval.mean) == pytest.approx(0.03, abs=0.003)


def test_the_claim_says_what_is_tested_where_nothing_diverged(tmp_path):
    found = claim(both(tmp_path, three()))
    assert "SWR does not diverge more often than each" in found.tested
    assert "Where nothing diverged only that and accuracy were tested" in found.tested


def test_settings_that_are_swept_count_at_their_best(tmp_path):
    swept = ahead("swr", 0.0, grid=[({"factor": 1e-4}, 0.0), ({"factor": 1e-3}, -0.1)])
    found = claim(both(tmp_path, [*three()[:2], swept]))
    assert found.verdict is YES
    assert found.evidence[0].statement.note == (
        "SWR: best of 2 settings, each seed at the one that other seeds chose; no run that is compared diverged"
    )


def test_what_is_missing(tmp_path):
    regular = folder(tmp_path, "vit", three())
    found = claim([regular])
    assert found.verdict is OPEN
    assert [(one.what, one.command) for one in found.missing] == [
        (
            "SWR, CBP and ReDo in the ViT, reparameterized layer norm",
            "supple run incremental_cifar100/reparameterized",
        )
    ]
    found = claim([regular, folder(tmp_path, "vit_reparameterized", three()[1:])])
    assert found.verdict is OPEN
    assert [one.what for one in found.missing] == ["CBP in the ViT, reparameterized layer norm"]
    assert claim([folder(tmp_path, "vit", three(swr=-0.1))]).verdict is NO
    # The first classes alone are no addition.
    assert claim([folder(tmp_path, "vit", three(), additions=1)]).evidence == []


@pytest.mark.slow
def test_other_claims_take_no_runs_of_transformers(tmp_path):
    network = {"hidden": 100, "depth": 3}
    folders = both(tmp_path, [ahead("base", -0.2), *three()], additions=12, network=network)
    assert [one.id for one in check_claims(folders) if one.evidence] == ["C7"]
    rows = [Row(name, 0.9, 0.9) for name in ("cbp", "redo", "swr")]
    permuted = measured_of(write(tmp_path / "permuted", rows, tasks=12))
    assert claim([permuted]).evidence == []
    together = {one.id: one for one in check_claims([*folders, permuted])}
    assert together["C7"].verdict is YES
    assert len(together["C1"].evidence) == 3


def test_runs_that_differ_in_more_than_the_method_are_not_compared(tmp_path):
    rows = [ahead("base", -0.1, settings={"optimizer.weight_decay": 2e-6}), *three()]
    assert claim(both(tmp_path, rows)).verdict is YES
    rows[3].settings = {"optimizer.weight_decay": 2e-6}
    found = claim(both(tmp_path, rows))
    assert (found.verdict, found.evidence) == (OPEN, [])


def test_all_that_is_smaller_is_said(tmp_path):
    assert incremental_scale(ClassIncremental(**PROBLEM), NETWORK, 20) == ""
    problem = {
        **PROBLEM, "data": "fashion_mnist", "first": 2, "step": 3, "epochs": 10, "train_images": 150,
        "test_images": 40, "validation": 10, "batch_size": 30,
    }  # fmt: skip
    network = {**NETWORK, "patch_size": 7, "depth": 2, "heads": 2, "width": 32, "hidden": 64}
    assert incremental_scale(ClassIncremental(**problem), network, 4) == (
        "4 of the paper's 20 additions, 10 instead of 100 classes, 2 classes at first and 3 at each addition instead "
        "of 5, images of fashion_mnist, 150 training images of a class instead of all, 40 test images of a class "
        "instead of all, 10 instead of 50 validation images of a class, 10 instead of 100 epochs an addition, patch "
        "size 7 instead of 4, depth 2 instead of 8, heads 2 instead of 12, width 32 instead of 384, hidden 64 instead "
        "of 1536, batches of 30 instead of 90"
    )
    assert incremental_scale(ClassIncremental(**{**PROBLEM, "validation": 1}), NETWORK, 20) == (
        "1 instead of 50 validation images of a class"
    )
    found = claim([folder(tmp_path, "vit", three(), network={"depth": 2})])
    assert found.scale == {
        "ViT": "4 of the paper's 20 additions, 20 instead of 100 classes, 1 instead of 100 epochs an addition, depth 2 "
        "instead of 8"
    }


def test_which_transformer():
    given = {f"network.{name}": value for name, value in NETWORK.items()}
    assert setting_of(given, "class_incremental") == "vit"
    assert setting_of({**given, "network.reparameterized": True}, "class_incremental") == "vit_reparameterized"
    assert setting_of(given, "permuted") is None
