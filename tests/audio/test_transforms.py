"""The filter banks: exact inverses up to both ends, and what torch and the formula say."""

import math

import pytest
import torch

from audiovae.audio.transforms import MDCT, STFT, frame, overlap_add, window_margins
from audiovae.errors import ConfigError


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("win_length", "hop_length"), [(128, 32), (128, 64), (256, 32)])
def test_overlap_add_is_the_transpose_of_frame(win_length, hop_length, causal):
    x, y = noise(2, 9 * hop_length), noise(2, 9, win_length)
    there = (frame(x, win_length, hop_length, causal) * y).sum()
    back = (x * overlap_add(y, hop_length, causal)).sum()
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("n_frames", [1, 2, 3, 9])
@pytest.mark.parametrize(("win_length", "hop_length"), [(128, 32), (128, 64), (256, 32)])
def test_stft_inverse_is_exact_up_to_both_ends(win_length, hop_length, n_frames):
    bank, x = STFT(win_length, hop_length), noise(2, 3, n_frames * hop_length)
    assert bank(x).shape == (2, 3, n_frames, win_length // 2 + 1)
    torch.testing.assert_close(bank.inverse(bank(x)), x, rtol=0, atol=1e-5)


def test_causal_stft_inverse_is_exact_but_for_the_fade_at_the_end():
    bank, x = STFT(128, 32, causal=True), noise(1, 320)
    y, fade = bank.inverse(bank(x)), 128 * 16 // 100
    torch.testing.assert_close(y[:, :-fade], x[:, :-fade], rtol=0, atol=1e-5)
    assert (y[:, -fade:].abs() <= x[:, -fade:].abs() + 1e-5).all()


@pytest.mark.parametrize("causal", [False, True])
def test_phases_that_count_from_the_sound_turn_the_others(causal):
    x, f, k = noise(2, 8 * 32).double(), torch.arange(8.0)[:, None], torch.arange(65.0)
    turn = torch.exp(-2j * math.pi * (f * k * 32 / 128).double())
    bank = STFT(128, 32, causal, phase="sound").double()
    expected = STFT(128, 32, causal).double()(x) * turn
    torch.testing.assert_close(bank(x), expected, rtol=0, atol=1e-9)
    back, whole = bank.inverse(bank(x)), 256 - (128 * 16 // 100 if causal else 0)
    torch.testing.assert_close(back[:, :whole], x[:, :whole], rtol=0, atol=1e-9)


def test_a_steady_partial_keeps_its_phase_if_phases_count_from_the_sound():
    x = torch.cos(2 * math.pi * 9 * torch.arange(12 * 32).double() / 128 + 0.7)
    bank = STFT(128, 32, phase="sound").double()
    steady = bank(x)[2:-2, 9]  # the outer frames look beyond the ends
    torch.testing.assert_close(steady, steady[:1].expand_as(steady), rtol=0, atol=1e-6)


def test_stft_equals_torch_on_the_inside():
    bank, x = STFT(64, 16), noise(2, 640)
    window = torch.hann_window(64)
    # frames 2 and on have no zeros in them; the second starts at sample 2 * 16 - 24 = 8
    theirs = torch.stft(x[:, 8:], 64, 16, window=window, center=False, return_complex=True)
    ours = bank(x)[:, 2:-2].mT * math.sqrt(64)
    torch.testing.assert_close(ours, theirs[..., : ours.shape[-1]], rtol=1e-4, atol=1e-4)


def test_mdct_equals_its_formula():
    hop_length, x = 8, noise(8 * 4)
    padded = torch.nn.functional.pad(x, window_margins(16, hop_length, causal=False))
    n, k = torch.arange(16.0), torch.arange(8.0)
    kernel = torch.cos(math.pi / 8 * (n + 0.5 + 4)[:, None] * (k + 0.5))
    window = torch.sin(math.pi * (n + 0.5) / 16)
    for f in range(4):
        expected = math.sqrt(2 / 8) * (padded[f * 8 : f * 8 + 16] * window) @ kernel
        torch.testing.assert_close(MDCT(8)(x)[f], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_mdct_inverse_is_exact_where_two_frames_lie(causal):
    bank, x = MDCT(32, causal), noise(2, 32 * 9)
    y = bank.inverse(bank(x))
    inside = slice(0, -32) if causal else slice(16, -16)
    torch.testing.assert_close(y[:, inside], x[:, inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("bank", [STFT(128, 32, causal=True), MDCT(32, causal=True)])
def test_a_causal_frame_sees_nothing_after_its_own_hop(bank):
    x = noise(320)
    y = torch.cat([x[:160], -x[160:]])
    torch.testing.assert_close(bank(x)[:5], bank(y)[:5], rtol=0, atol=0)
    assert (bank(x)[5] - bank(y)[5]).abs().max() > 1e-3


def test_stft_refuses_a_window_that_is_no_multiple_of_the_hop():
    with pytest.raises(ConfigError, match=r"multiple of hop_length \(48\).*got 128"):
        STFT(128, 48)
