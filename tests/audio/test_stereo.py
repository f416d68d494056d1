"""Mid and side lead back to left and right."""

from __future__ import annotations

import torch

from audiovae.audio.stereo import left_right, mid_side


def test_mid_and_side_lead_back_to_left_and_right() -> None:
    x = torch.randn(3, 2, 50, dtype=torch.float64)
    torch.testing.assert_close(left_right(mid_side(x)), x)


def test_mono_in_both_channels_has_no_side() -> None:
    x = torch.randn(1, 1, 50).expand(1, 2, 50)
    mid, side = mid_side(x).unbind(1)
    torch.testing.assert_close(mid, x[:, 0])
    assert side.abs().max() == 0
