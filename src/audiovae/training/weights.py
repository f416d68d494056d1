"""The weights of the objective: named tables, and those of terms that not every model gives.

spectral  multi-resolution STFT, multi-scale mel, L1 and the compressed complex term: for `spec_frame`
mission   sum over resolutions of (spectral convergence + log magnitude) + lambda L1
elbo      the full Gaussian log-density: with beta = 1, total = -ELBO / seconds, in nats per second
likelihood  the same with the model's own density, its term "nll" in nats per second (tokens, WaveVAE)
jukebox   the losses of losses/jukebox.py, summed over its levels by the model
magnitude   the terms of "spectral" that need no phase, from the first step on: for `spec_conv`
spectrogram nothing but the model's own term of that name: its sound has no gradient (`spec_conv` with Griffin-Lim)
bare      nothing: the weights are all said one by one, as in the recipes
"""

from __future__ import annotations

from typing import Literal

from audiovae.training.schedules import Schedule

Named = Literal[
    "spectral", "mission", "elbo", "likelihood", "jukebox", "magnitude", "spectrogram", "bare"
]

NAMED_WEIGHTS: dict[str, dict[str, float]] = {
    # The L1 term is what teaches phase, from the loud low partials upwards; without it the spectral terms alone settle on
    # right envelopes with a random fine structure (the row "no L1 term" of benchmarks/front_end.py).
    # 0.15 = one seventh: the STFT term is a sum over seven windows; 2.5e-6 a nat per second = 1e-4 a nat per frame at 43 Hz
    "spectral": {"stft": 0.15, "mel": 1.0, "l1": 50.0, "complex": 3.0, "kl": 2.5e-6},
    "mission": {"stft": 1.0, "l1": 10.0, "kl": 1e-5},
    "elbo": {"gaussian": 1.0, "kl": 1.0},
    "likelihood": {"nll": 1.0, "kl": 1.0},
    "jukebox": {"l2": 1.0, "linf": 0.02, "multispectral": 1.0, "commitment": 0.02},
    "magnitude": {"stft": 0.15, "mel": 1.0, "kl": 2.5e-6},
    "spectrogram": {"spectrogram": 5.0, "kl": 2.5e-6},
    "bare": {},
}
# Of terms that only some models give; a named table above counts only those that the model has
# 5: the mel term is a sum over seven windows, that of the spectrogram has one
OWN_WEIGHTS = {
    "commitment": 0.25,
    "codebook": 1.0,
    "nll": 1.0,
    "spectrogram": 5.0,
} | {name: NAMED_WEIGHTS["jukebox"][name] for name in ("l2", "linf", "multispectral")}
# Of the terms that discriminators give, from the step on in which they begin
ADVERSARIAL_WEIGHTS = {"adversarial": 0.1, "features": 5.0}  # Stable Audio's
# The waveform comes first: from the first step on, the spectral terms lead to right envelopes over partials that stand
# still, and out of there the waveform is hardly learned any more.
NAMED_SPECTRAL = {"spectral": Schedule(kind="linear", start=0.1, stop=0.4)}
