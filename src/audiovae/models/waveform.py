"""What the nets on the waveform stages have in common: the way through, and how far each half reaches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiovae.bottlenecks import Bottled
from audiovae.models.base import Autoencoder, Context
from audiovae.nn.conv import inputs_of
from audiovae.nn.waveform_stages import WaveformDecoder, WaveformEncoder


class WaveformAutoencoder(Autoencoder):
    """An encoder whose features are the bottleneck's own input, and a decoder of the latent."""

    encoder: WaveformEncoder
    decoder: WaveformDecoder

    def bottle(
        self, x: Tensor, *, sample: bool, generators: Sequence[torch.Generator] = ()
    ) -> Bottled:
        """x [B, C, T], T a multiple of hop_length -> Bottled with F = T / hop_length frames."""
        bottled: Bottled = self.bottleneck(self.encoder(x), sample=sample, generators=generators)
        return bottled

    def synthesise(self, z: Tensor) -> Tensor:
        """z [B, D, F] -> x_hat [B, C, F * hop_length]; not limited to [-1, 1]."""
        x_hat: Tensor = self.decoder(z)
        return x_hat

    @property
    def encoder_context(self) -> Context:
        """Samples before the first and after the last one of a latent frame that can change it."""
        first, last = inputs_of(self.encoder, 0, 0)
        return Context(-first, last - (self.hop_length - 1))

    @property
    def decoder_context(self) -> Context:
        """Latent frames before and after a frame that can change its hop_length samples."""
        first, last = inputs_of(self.decoder, 0, self.hop_length - 1)
        return Context(-first, last)
