"""Verdicts follow planted differences, and are wrong as rarely as they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from supple.lab.report.verdicts import Says, Statement, Verdict, judge, together

YES, NO, OPEN = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.NOT_ENOUGH


def values(mean, spread=1.0, n=10):
    """Differences with exactly this mean, and this standard deviation."""
    sample = np.random.default_rng(0).normal(size=n)
    return mean + spread * (sample - sample.mean()) / sample.std(ddof=1)


@pytest.mark.parametrize(
    ("says", "mean", "expected"),
    [
        # The half width of the interval of ten values with standard deviation 1 is 0.715; the margin is 2.
        (Says.ABOVE, 5, YES),
        (Says.ABOVE, 1, YES),
        (Says.ABOVE, 0.3, NO),
        (Says.ABOVE, -5, NO),
        (Says.BELOW, -1, YES),
        (Says.BELOW, -0.3, NO),
        (Says.BELOW, 5, NO),
        (Says.WITHIN, 0, YES),
        (Says.WITHIN, 1.2, YES),
        (Says.WITHIN, 1.5, OPEN),
        (Says.WITHIN, -2.5, OPEN),
        (Says.WITHIN, 3, NO),
        (Says.WITHIN, -3, NO),
        (Says.NOT_BELOW, 0, YES),
        (Says.NOT_BELOW, -1, YES),
        (Says.NOT_BELOW, 9, YES),
        (Says.NOT_BELOW, -1.9, OPEN),
        (Says.NOT_BELOW, -3, NO),
    ],
)
def test_each_kind_of_statement(says, mean, expected):
    (found,) = judge([Statement("it", values(mean), says, margin=2.0)])
    assert found.verdict is expected
    assert found.interval.mean == pytest.approx(mean)
    assert (found.needed is not None) == (expected is OPEN)


def test_one_diverged_run_does_not_hide_what_all_pairs_say():
    behind = np.array([0.7, 0.02, 0.021, 0.019, 0.02, 0.018])
    for says, d in ((Says.ABOVE, behind), (Says.BELOW, -behind)):
        (found,) = judge([Statement("it", d, says)])
        assert found.interval.low < 0 < found.interval.high
        assert found.verdict is YES
        (found,) = judge([Statement("it", -d, says)])
        assert found.verdict is NO
        assert found.p == pytest.approx(2 / 2**6)
        # Five that agree may be chance: 2 / 2^5 = 0.0625.
        assert judge([Statement("it", d[:5], says)])[0].verdict is OPEN


def shares(*d):
    (found,) = judge([Statement("it", np.array(d, dtype=float), Says.NOT_BELOW, shares=True)])
    return found


@pytest.mark.parametrize(
    ("d", "expected"),
    [
        ([0, 0], YES),
        ([1, 1], YES),
        ([1, 0, 0], YES),
        ([-1, 0, 0], OPEN),
        ([-1] * 5, OPEN),  # 2 / 2^5 = 0.0625
        ([-1] * 6, NO),  # 2 / 2^6 = 0.031
        ([-1] * 4 + [0] * 96, OPEN),
        ([-1] + [1] * 7, OPEN),  # 2 (8 + 1) / 2^8 = 0.070
        ([-1] + [1] * 8, YES),  # 2 (9 + 1) / 2^9 = 0.039
        ([1] + [-1] * 8, NO),
        ([], OPEN),
    ],
)
def test_shares(d, expected):
    found = shares(*d)
    assert found.verdict is expected
    assert np.isnan(found.interval.low)
    assert np.isnan(found.interval.high)
    assert found.needed is None


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=2, max_size=20), st.data())
def test_shares_against_scipy_and_more_divergences_of_the_other_method_never_weaken_them(d, data):
    found = shares(*d)
    more, fewer = d.count(-1), d.count(1)
    p = stats.binomtest(more, more + fewer).pvalue if more > fewer else 1.0
    assert found.p == pytest.approx(p)
    assert (found.verdict is NO) == (p < 0.05)
    place = data.draw(st.integers(0, len(d) - 1))
    raised = shares(*(min(1, value + (k == place)) for k, value in enumerate(d)))
    order = [NO, OPEN, YES]
    assert order.index(raised.verdict) >= order.index(found.verdict)


def test_not_below_is_supported_by_every_pair_only_where_it_is_asked():
    d = np.array([0.65, 0.0, 0.002, -0.001, -0.004, 0.001])
    for agreeing, expected in ((True, YES), (False, OPEN)):
        (found,) = judge([Statement("it", d, Says.NOT_BELOW, 0.005, agreeing=agreeing)])
        assert found.interval.low < -0.005
        assert found.verdict is expected
        (found,) = judge([Statement("it", d[:5], Says.NOT_BELOW, 0.005, agreeing=agreeing)])
        assert found.verdict is OPEN


def test_without_a_margin_no_difference_is_too_small():
    (found,) = judge([Statement("it", values(0.3), Says.ABOVE)])
    assert found.verdict is OPEN
    # t(n - 1) / sqrt(n) is below 0.3 from n = 46 on: 2.0141 / sqrt(46) = 0.2970, 2.0154 / sqrt(45) = 0.3004.
    assert found.needed == 46


@pytest.mark.parametrize("differences", [np.array([]), np.array([5.0])])
def test_too_few_pairs(differences):
    for says in Says:
        (found,) = judge([Statement("it", differences, says, margin=2.0)])
        assert found.verdict is OPEN
        assert found.needed is None


def test_several_statements():
    assert together([YES, YES], missing=False) is YES
    assert together([YES, YES], missing=True) is OPEN
    assert together([YES, OPEN], missing=False) is OPEN
    assert together([YES, OPEN, NO], missing=True) is NO
    assert together([], missing=False) is OPEN


@pytest.mark.slow
def test_a_true_claim_is_rarely_contradicted():
    """Four statements that are just true: any of them contradicted in at most 5% of cases."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        judged = judge([Statement("it", rng.normal(size=8), Says.ABOVE) for _ in range(4)])
        wrong += any(one.verdict is NO for one in judged)
    # One-sided at two-sided p-values: half of 5%, and two standard errors of 400 cases.
    assert wrong / 400 <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 400)


@pytest.mark.slow
def test_a_false_claim_is_rarely_supported():
    rng = np.random.default_rng(2)
    right = sum(
        all(one.verdict is YES for one in judge([Statement("", rng.normal(m, 1, 8), Says.ABOVE) for m in (0, 3)]))
        for _ in range(400)
    )
    assert right / 400 <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 400)
