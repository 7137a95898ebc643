"""PCA before clustering against scikit-learn, with and without whitening."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from compass_ray.clustering.pca import fit_pca
from compass_ray.config import ClusterConfig, ConfigError, parse_config

ROWS = (np.random.default_rng(0).normal(size=(200, 12)) * np.linspace(5, 0.2, 12)).astype(np.float32)


@pytest.mark.parametrize("whiten", [False, True])
def test_reduced_rows_equal_scikit_learn_s(whiten: bool) -> None:
    expected = PCA(5, whiten=whiten, svd_solver="covariance_eigh").fit_transform(ROWS.astype(np.float64))
    assert fit_pca(ROWS, 5, whiten=whiten)(ROWS) == pytest.approx(expected, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(0, 100))
def test_whitened_rows_have_unit_covariance(dimensions: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(60, 12)).astype(np.float32) @ ROWS[:12]
    reduced = fit_pca(rows, dimensions, whiten=True)(rows)
    assert np.cov(reduced.T) == pytest.approx(np.eye(dimensions), abs=0.05)


def test_rows_without_variance_stay_finite() -> None:
    rows = np.tile(np.arange(1, 5, dtype=np.float32), (10, 1))
    rows[:, 0] += np.arange(10)
    assert np.isfinite(fit_pca(rows, 3, whiten=True)(rows)).all()


def test_whitening_needs_dimensions() -> None:
    with pytest.raises(ConfigError, match="set pca_dims"):
        parse_config({"languages": ["sw"], "cluster": {"whiten": True, "pca_dims": None}})


def test_the_fingerprint_changes_only_if_rows_are_whitened() -> None:
    plain, white = ClusterConfig().fingerprint_settings(), ClusterConfig(whiten=True).fingerprint_settings()
    assert white == plain | {"whiten": True}
