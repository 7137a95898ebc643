"""The sampler against a plain one that scores every row and every pair at each draw."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from compass_ray.core.instance_scores import Boundary, boundary_scores, instance_scores
from compass_ray.core.sampling import sample_cluster, sample_scored
from compass_ray.core.stochastic import MIN_BLOCK

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]
RUNS = (5_000, pytest.param(20_000, marks=pytest.mark.slow))
"""Repetitions of a statistical test; the second number finds smaller departures."""


def similar_pairs(problem: Problem, tau: float) -> np.ndarray:
    """Which pairs of rows are near duplicates, from the full similarity matrix."""
    rows = problem[0].astype(np.float64)
    return rows @ rows.T > tau


def plain_scores(problem: Problem, drawn: list[int], quota: int, similar: np.ndarray, delta: float) -> np.ndarray:
    """Equation 1 for every remaining row; without the penalty if all scores are 0."""
    rows, proto, edge = problem
    late = (len(drawn) / quota) ** 2
    mixture = (1 - late) * proto + late * edge
    score = np.maximum(mixture - delta * similar[:, drawn].sum(axis=1), 0)
    left = np.setdiff1d(np.arange(len(rows)), drawn)
    score = score if score[left].any() else mixture
    score = score if score[left].any() else np.ones(len(rows))
    return np.where(np.isin(np.arange(len(rows)), left), score, -np.inf)


def plain_best(problem: Problem, quota: int, tau: float, delta: float) -> list[int]:
    drawn, similar = list[int](), similar_pairs(problem, tau)
    while len(drawn) < quota:
        drawn.append(int(np.argmax(plain_scores(problem, drawn, quota, similar, delta))))
    return drawn


def plain_draw(problem: Problem, quota: int, tau: float, delta: float, rng: np.random.Generator) -> list[int]:
    drawn, similar = list[int](), similar_pairs(problem, tau)
    while len(drawn) < quota:
        chance = np.maximum(plain_scores(problem, drawn, quota, similar, delta), 0)
        drawn.append(int(rng.choice(len(chance), p=chance / chance.sum())))
    return drawn


def every_outcome(
    problem: Problem, quota: int, tau: float, delta: float, drawn: tuple[int, ...] = (), chance: float = 1.0
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Each sequence of draws with its probability."""
    if len(drawn) == quota:
        yield drawn, chance
        return
    score = np.maximum(plain_scores(problem, list(drawn), quota, similar_pairs(problem, tau), delta), 0)
    for i in np.flatnonzero(score):
        yield from every_outcome(problem, quota, tau, delta, (*drawn, int(i)), chance * score[i] / score.sum())


def crowded(n: int, groups: int, seed: int = 0, d: int = 8) -> Problem:
    """Rows in `groups` groups of near duplicates, with scores of one of several clusters."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, d)) + 1.0
    rows = centres[rng.integers(0, groups, n)] + 0.1 * rng.normal(size=(n, d))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    scores = instance_scores(rows, rows.mean(axis=0), rng.normal(size=(5, d)))
    return rows, scores.proto, boundary_scores(scores.margin_raw)


def fast(problem: Problem, quota: int, **rule: object) -> list[int]:
    rows, proto, edge = problem
    return sample_scored(lambda i: rows[i], proto, edge, quota, **rule).position.tolist()


@pytest.mark.parametrize(
    ("n", "groups", "quota", "delta"),
    [(4, 4, 3, 0.1), (6, 2, 3, 0.1), (5, 2, 3, 0.4), (4, 1, 4, 1.5), (5, 2, 3, 0.0), (3, 2, 1, 0.1)],
    ids=["apart", "crowded", "some at zero", "all at zero", "no penalty", "one draw"],
)
@pytest.mark.parametrize("runs", RUNS)
def test_every_sequence_has_the_enumerated_probability(n: int, groups: int, quota: int, delta: float, runs: int) -> None:
    problem, rng = crowded(n, groups), np.random.default_rng(7)
    expected = dict(every_outcome(problem, quota, 0.9, delta))
    seen = Counter(tuple(fast(problem, quota, tau=0.9, delta=delta, rng=rng)) for _ in range(runs))
    assert set(seen) <= set(expected)
    assert sum(expected.values()) == pytest.approx(1.0)
    rare = [key for key, p in expected.items() if p * runs < 5]
    bins = [[key] for key in expected if key not in rare] + ([rare] if rare else [])
    observed = [sum(seen[key] for key in keys) for keys in bins]
    due = [runs * sum(expected[key] for key in keys) for keys in bins]
    assert chisquare(observed, due).pvalue > 1e-3


def plain_runs(problem: Problem, quota: int, tau: float, delta: float, runs: int, rng: np.random.Generator) -> np.ndarray:
    """`plain_draw` repeated in parallel: int (runs, quota)."""
    rows, proto, edge = problem
    similar = similar_pairs(problem, tau)
    near, left = np.zeros((runs, len(rows))), np.ones((runs, len(rows)))
    drawn = np.empty((runs, quota), np.int64)
    for t in range(quota):
        mixture = (1 - (t / quota) ** 2) * proto + (t / quota) ** 2 * edge
        score = left * np.maximum(mixture - delta * near, 0)
        score = np.where(score.any(axis=1, keepdims=True), score, left * mixture)
        cumulative = score.cumsum(axis=1)
        drawn[:, t] = (cumulative <= rng.random((runs, 1)) * cumulative[:, -1:]).sum(axis=1)
        near += similar[drawn[:, t]]
        left[np.arange(runs), drawn[:, t]] = 0
    return drawn


@pytest.mark.parametrize("delta", [0.1, 0.3])
@pytest.mark.parametrize("runs", RUNS)
def test_every_draw_follows_the_plain_sampler(delta: float, runs: int) -> None:
    problem, quota = crowded(12, 3), 5
    rng = np.random.default_rng(1)
    ours = np.array([fast(problem, quota, tau=0.9, delta=delta, rng=rng) for _ in range(runs)])
    plain = plain_runs(problem, quota, 0.9, delta, runs, np.random.default_rng(2))
    for place in range(quota):
        table = np.array([np.bincount(x[:, place], minlength=12) for x in (ours, plain)])
        assert chi2_contingency(table[:, table.sum(axis=0) >= 10]).pvalue > 1e-3 / quota


@pytest.mark.parametrize("delta", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("runs", [3000, RUNS[1]])
def test_draws_beyond_the_first_block_follow_the_plain_sampler_too(delta: float, runs: int) -> None:
    problem, quota = crowded(30, 5), 26
    assert quota > MIN_BLOCK
    rng = np.random.default_rng(1)
    ours = np.array([fast(problem, quota, tau=0.9, delta=delta, rng=rng) for _ in range(runs)])
    plain = plain_runs(problem, quota, 0.9, delta, runs, np.random.default_rng(2))
    places = (8, 17, 25)
    for place in places:
        table = np.array([np.bincount(x[:, place], minlength=30) for x in (ours, plain)])
        assert chi2_contingency(table[:, table.sum(axis=0) >= 10]).pvalue > 1e-3 / len(places)


@pytest.mark.parametrize(("delta", "quota"), [(0.1, 260), (0.3, 260), (0.94, 260), (0.94, 330)])
def test_the_penalty_returns_once_a_score_is_positive_again(delta: float, quota: int) -> None:
    """Every score is 0 until the weight of the boundary scores is large enough; each draw follows equation 1."""
    groups, copies = 200, 4
    rows = np.repeat(np.eye(groups, dtype=np.float32), copies, axis=0)
    proto, edge = np.full(len(rows), 0.67), np.tile([1.0, 0.0], len(rows) // 2)
    drawn = sample_scored(lambda i: rows[i], proto, edge, quota, delta=delta, rng=np.random.default_rng(0))
    order = drawn.position.tolist()
    problem = rows, proto, edge
    similar = similar_pairs(problem, 0.9)
    due = [plain_scores(problem, order[:t], quota, similar, delta)[order[t]] for t in range(quota)]
    assert drawn.score == pytest.approx(due)


def test_parallel_plain_runs_equal_plain_runs() -> None:
    problem, rng = crowded(8, 2), np.random.default_rng(1)
    one = np.array([plain_draw(problem, 5, 0.9, 0.3, rng)[-1] for _ in range(1500)])
    many = plain_runs(problem, 5, 0.9, 0.3, 1500, np.random.default_rng(2))[:, -1]
    table = np.array([np.bincount(x, minlength=8) for x in (one, many)])
    assert chi2_contingency(table[:, table.sum(axis=0) >= 10]).pvalue > 1e-3


def test_as_printed_draws_follow_enumeration_and_brute_force_too() -> None:
    rows = crowded(5, 2)[0]
    centroid, others = rows.mean(axis=0), -rows[:2]
    scores = instance_scores(rows, centroid, others)
    problem = rows, scores.proto, boundary_scores(scores.margin_raw, form=Boundary.AS_PRINTED)
    assert problem[2] == pytest.approx(1.0 - boundary_scores(scores.margin_raw))
    rule = {"tau": 0.9, "delta": 0.1, "boundary": Boundary.AS_PRINTED}
    best = sample_cluster(rows, centroid, others, 4, mode="deterministic", rng=np.random.default_rng(0), **rule)
    assert best.tolist() == plain_best(problem, 4, 0.9, 0.1)
    expected, rng = dict(every_outcome(problem, 2, 0.9, 0.1)), np.random.default_rng(3)
    seen = Counter(tuple(sample_cluster(rows, centroid, others, 2, rng=rng, **rule).tolist()) for _ in range(RUNS[0]))
    assert chisquare([seen[key] for key in expected], [RUNS[0] * p for p in expected.values()]).pvalue > 1e-3


@settings(max_examples=60)
@given(
    st.integers(1, 60),
    st.integers(1, 8),
    st.data(),
    st.sampled_from([0.0, 0.1, 0.35, 2.0]),
    st.sampled_from([0.5, 0.9]),
)
def test_deterministic_is_the_brute_force_arg_max(n: int, groups: int, data: st.DataObject, delta: float, tau: float) -> None:
    problem = crowded(n, groups, seed=data.draw(st.integers(0, 99)))
    quota = data.draw(st.integers(1, n))
    ours = fast(problem, quota, tau=tau, delta=delta, mode="deterministic", rng=np.random.default_rng(0))
    assert ours == plain_best(problem, quota, tau, delta)


@pytest.mark.parametrize("groups", [1, 20, 150])
@pytest.mark.parametrize(("window", "ahead"), [(1, 1), (7, 3), (7, 50), (64, 16), (128, 32)])
def test_the_window_of_leaders_changes_nothing(groups: int, window: int, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compass_ray.core.deterministic.WINDOW", window)
    monkeypatch.setattr("compass_ray.core.deterministic.AHEAD", ahead)
    problem = crowded(150, groups)
    ours = fast(problem, 110, tau=0.9, delta=0.1, mode="deterministic", rng=np.random.default_rng(0))
    assert ours == plain_best(problem, 110, 0.9, 0.1)


@settings(max_examples=80)
@given(st.integers(1, 200), st.data(), st.sampled_from(["stochastic", "deterministic", "uniform"]))
def test_a_quota_of_distinct_rows_is_reproducible(n: int, data: st.DataObject, mode: str) -> None:
    problem, quota = crowded(n, 3), data.draw(st.integers(0, n))
    delta = data.draw(st.sampled_from([0.0, 0.1, 1.0]))
    first, again = (fast(problem, quota, tau=0.9, delta=delta, mode=mode, rng=np.random.default_rng(3)) for _ in range(2))
    assert first == again
    assert len(set(first)) == quota
    assert set(first) <= set(range(n))


def test_equal_rows_are_drawn_in_order_for_any_size_of_the_window() -> None:
    rows, proto, edge = crowded(60, 6)
    problem = np.repeat(rows, 5, axis=0), np.repeat(proto, 5), np.repeat(edge, 5)
    ours = fast(problem, 200, tau=0.9, delta=0.05, mode="deterministic", rng=np.random.default_rng(0))
    assert ours == plain_best(problem, 200, 0.9, 0.05)


def test_scores_and_neighbours_explain_each_draw() -> None:
    problem = rows, proto, edge = crowded(80, 4)
    for mode in ("stochastic", "deterministic"):
        drawn = sample_scored(lambda i: rows[i], proto, edge, 40, mode=mode, rng=np.random.default_rng(0))
        order = drawn.position.tolist()
        for t, position in enumerate(order):
            near = int((rows[order[:t]] @ rows[position] > 0.9).sum())
            assert drawn.neighbours[t] == near
            assert drawn.score[t] == pytest.approx(
                plain_scores(problem, order[:t], 40, similar_pairs(problem, 0.9), 0.1)[position]
            )


def test_only_rows_considered_are_read() -> None:
    rows, proto, edge = crowded(5000, 2500)
    read: set[int] = set()

    def watch(positions: np.ndarray) -> np.ndarray:
        read.update(positions.tolist())
        return rows[positions]

    sample_scored(watch, proto, edge, 50, rng=np.random.default_rng(0))
    assert len(read) < 500
    read.clear()
    sample_scored(watch, proto, edge, 50, delta=0.0, rng=np.random.default_rng(0))
    assert not read


def test_near_duplicates_are_penalised() -> None:
    rows, proto, edge = crowded(400, 40)
    free, held = (
        sample_scored(lambda i: rows[i], proto, edge, 40, delta=delta, rng=np.random.default_rng(0)).position
        for delta in (0.0, 0.5)
    )
    pairs = [int((rows[x] @ rows[x].T > 0.9).sum()) for x in (free, held)]
    assert pairs[1] < pairs[0]


def test_uniform_is_uniform() -> None:
    problem, rng = crowded(6, 2), np.random.default_rng(0)
    firsts = np.bincount([fast(problem, 2, mode="uniform", rng=rng)[0] for _ in range(3000)], minlength=6)
    assert chisquare(firsts).pvalue > 1e-3


@pytest.mark.parametrize("mode", ["stochastic", "deterministic", "uniform"])
def test_identical_rows_without_other_clusters(mode: str) -> None:
    rows = np.repeat(np.array([[0.6, 0.8, 0.0]], np.float32), 9, axis=0)
    drawn = sample_cluster(rows, rows[0], np.empty((0, 3)), 9, tau=0.9, delta=0.1, mode=mode, rng=np.random.default_rng(0))
    assert sorted(drawn.tolist()) == list(range(9))
    if mode == "deterministic":
        assert drawn.tolist() == list(range(9))


def test_rows_with_scores_of_0_are_drawn_uniformly() -> None:
    rows, zero, rng = np.eye(4, dtype=np.float32), np.zeros(4), np.random.default_rng(0)
    firsts = [int(sample_scored(lambda i: rows[i], zero, zero, 2, rng=rng).position[0]) for _ in range(2000)]
    assert chisquare(np.bincount(firsts, minlength=4)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quota": 4}, "quota is 4 but the cluster has 3 candidates"),
        ({"quota": -1}, "quota is -1"),
        ({"tau": 1.5}, "tau is 1.5"),
        ({"delta": -0.1}, "delta -0.1"),
        ({"mode": "greedy"}, "stochastic, deterministic, uniform"),
        ({"embeddings": np.full((3, 3), np.nan)}, "NaN"),
        ({"embeddings": np.zeros((3, 3))}, "all zero"),
        ({"embeddings": np.ones(3)}, "shape"),
        ({"centroid": np.full(3, np.nan)}, "centroid"),
    ],
)
def test_errors_name_the_given_value(change: dict[str, object], message: str) -> None:
    arguments = {
        "embeddings": np.eye(3),
        "centroid": np.ones(3),
        "other_centroids": -np.eye(3),
        "quota": 2,
        "tau": 0.9,
        "delta": 0.1,
        "rng": np.random.default_rng(0),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        sample_cluster(**arguments)
