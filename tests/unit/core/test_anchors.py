"""Anchors: their number, their clusters, and their rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compass_ray.core.anchors import choose_anchors, draw_by_cluster


def test_anchors_are_the_most_prototypical_rows_of_the_largest_clusters() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 30, 15, 5])
    proto = np.random.default_rng(0).random(100)
    anchors = choose_anchors(labels, proto, share=0.1, dense=0.8)
    for cluster, count in ((0, 6), (1, 4)):
        members = np.flatnonzero(labels == cluster)
        best = members[np.argsort(-proto[members])[:count]]
        assert set(anchors[labels[anchors] == cluster]) == set(best)
    assert len(anchors) == 10


@given(
    arrays(np.int64, st.integers(1, 80), elements=st.integers(-1, 5)).filter(lambda x: (x >= 0).any()),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
)
def test_anchors_have_the_given_number_are_distinct_and_never_noise(labels: np.ndarray, share: float, dense: float) -> None:
    anchors = choose_anchors(labels, np.ones(len(labels)), share=share, dense=dense)
    assert len(anchors) == len(np.unique(anchors)) == min(np.ceil(share * len(labels)), (labels >= 0).sum())
    assert (labels[anchors] >= 0).all()


def test_only_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="all 2 training rows are noise"):
        choose_anchors([-1, -1], [0.0, 0.0])


@given(arrays(np.int64, st.integers(1, 80), elements=st.integers(-1, 5)), st.integers(0, 90), st.integers(0, 2**32))
def test_drawn_rows_have_the_shares_of_the_clusters(labels: np.ndarray, count: int, seed: int) -> None:
    drawn = draw_by_cluster(labels, count, np.random.default_rng(seed))
    assert drawn.tolist() == sorted({*drawn.tolist()})
    assert len(drawn) == min(count, len(labels))
    for cluster in np.unique(labels):
        exact = len(drawn) * (labels == cluster).mean()
        assert abs((labels[drawn] == cluster).sum() - exact) < 1


def test_every_row_is_drawn_with_equal_probability() -> None:
    labels, count, rounds = np.repeat([0, 1, 2], [7, 2, 1]), 3, 4_000
    rng = np.random.default_rng(0)
    shares = sum(np.bincount(draw_by_cluster(labels, count, rng), minlength=10) for _ in range(rounds)) / rounds
    assert shares == pytest.approx(np.full(10, 0.3), abs=5 * (0.3 * 0.7 / rounds) ** 0.5)
