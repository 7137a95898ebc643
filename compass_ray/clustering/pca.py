"""PCA before clustering, stored for new points. Deterministic: an eigendecomposition, no random sketch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compass_ray.clustering.protocol import Float32

_NO_VARIANCE = 1e-12


@dataclass(frozen=True)
class PcaReduction:
    """``mean`` float32[d] and ``components`` float32[reduced, d]; without components rows do not change."""

    mean: Float32
    components: Float32

    def __call__(self, embeddings: Float32) -> Float32:
        """float32[n, reduced] of float32[n, d]."""
        if not len(self.components):
            return np.ascontiguousarray(embeddings, dtype=np.float32)
        return np.ascontiguousarray((embeddings - self.mean) @ self.components.T, dtype=np.float32)

    @property
    def input_dimensions(self) -> int:
        """Dimension d of the input embeddings."""
        return len(self.mean)

    def to_arrays(self) -> dict[str, Any]:
        """The arrays by name, for storage."""
        return {"mean": self.mean, "components": self.components}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> PcaReduction:
        """Create it from stored arrays."""
        return cls(arrays["mean"], arrays["components"])


def fit_pca(embeddings: Float32, dimensions: int | None, *, whiten: bool = False) -> PcaReduction:
    """PCA to ``dimensions``; no reduction if it is None or the embeddings have no more dimensions.

    ``whiten`` gives each dimension the variance 1, in which case embeddings of as few dimensions are transformed too.
    """
    n, d = embeddings.shape
    if whiten and dimensions is not None:
        dimensions = min(n - 1, d, dimensions)
    elif dimensions is None or min(n, d) <= dimensions:
        return PcaReduction(np.zeros(d, np.float32), np.zeros((0, d), np.float32))
    from sklearn.decomposition import PCA

    fitted = PCA(dimensions, svd_solver="covariance_eigh").fit(embeddings.astype(np.float64))
    scale = np.sqrt(np.maximum(fitted.explained_variance_, _NO_VARIANCE))[:, None] if whiten else 1.0
    return PcaReduction(fitted.mean_.astype(np.float32), (fitted.components_ / scale).astype(np.float32))
