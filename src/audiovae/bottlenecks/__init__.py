"""Bottlenecks: [B, W, F] -> one result type, `Bottled`."""

from audiovae.bottlenecks.gaussian import Bottled, Gaussian, GaussianConfig

__all__ = ["Bottled", "Gaussian", "GaussianConfig"]
