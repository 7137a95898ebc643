"""Anchors: their number, their clusters, and their rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compass_ray.core.anchors import choose_anchors


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
