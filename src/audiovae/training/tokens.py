"""What is different where the x of a training are codes: its data, its clock, and what a validation says."""

from __future__ import annotations

import torch

from audiovae.data import Dataset, DataSettings, TokenSpec, open_dataset, open_tokens
from audiovae.models import Autoencoder, ModelConfig, Reconstruction
from audiovae.models.token_transformer import TokenTransformer, TokenTransformerConfig
from audiovae.training.autoencoder import AutoencoderTask
from audiovae.training.config import TrainConfig
from audiovae.training.distributed import ALONE, World
from audiovae.training.schedules import Progress
from audiovae.training.tracking import Report


class TokenTask(AutoencoderTask):
    """Trains a token model: x [B, K, F] are codes, scored by the ELBO."""

    def __init__(
        self,
        model: TokenTransformer,
        data: Dataset,
        config: TrainConfig,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        super().__init__(model, data, config, device, world)
        self.objective.steps_per_second = model.config.token_rate

    def validate(self, at: Progress) -> Report:
        """As for sounds, but codes are nothing to listen to."""
        return super().validate(at)._replace(clips=())

    def _figures(self, out: Reconstruction, x: torch.Tensor, at: Progress) -> dict[str, float]:
        """The bound and its two parts in nats per second, and the share of codes that are the most likely ones."""
        weighed = self.objective(out, x, at, every_window=True)
        nll, kl = float(weighed.raw["nll"]), float(weighed.raw["kl"])
        real = x >= 0
        return {
            "negative_elbo": nll + kl,
            "nll": nll,
            "kl": kl,
            "accuracy": float((out.x_hat == x)[real].float().mean()),
            "total": float(weighed.total),
        }


def task_of(model: Autoencoder) -> type[AutoencoderTask]:
    """The task that trains a model."""
    return TokenTask if isinstance(model, TokenTransformer) else AutoencoderTask


def open_for(model: ModelConfig, data: DataSettings) -> Dataset:
    """Open the data for a model.  Raises DataError if one is of tokens and the other of sounds."""
    if isinstance(model, TokenTransformerConfig):
        return open_tokens(data, spec_of(model))
    return open_dataset(
        data, sample_rate=model.sample_rate, channels=model.channels, multiple_of=model.hop_length
    )


def spec_of(model: TokenTransformerConfig) -> TokenSpec:
    """What a token model needs its tokens to be."""
    codec = model.codec.model_hash if model.codec else None
    return TokenSpec(model.codebook_sizes, model.token_rate, model.block, codec)
