"""Training on tokens: the clock of codes, the bound that is descended, and data that do not fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from audiovae.data import SynthData, TokensData, TokenSourceData
from audiovae.data.tokens import TokenFile, write_tokens
from audiovae.errors import DataError
from audiovae.models import build, resolve
from audiovae.training import TrainConfig, run
from audiovae.training.autoencoder import AutoencoderTask
from audiovae.training.feed import Feed
from audiovae.training.objective import ObjectiveConfig
from audiovae.training.schedules import Progress
from audiovae.training.tokens import TokenTask, open_for, task_of

CPU = torch.device("cpu")
Tiny = Callable[..., TrainConfig]


def tokens(tiny: Tiny, **changes: Any) -> TrainConfig:
    """A tiny run on the token source."""
    options = {"size": 0, "decoder": "autoregressive", "block": 8}
    return tiny(
        **{
            "model": resolve("token_transformer", options),
            "data": TokenSourceData(segment_seconds=0.25, valid_crops=8),
            "objective": ObjectiveConfig(),
        }
        | changes
    )


def task_on(config: TrainConfig) -> AutoencoderTask:
    torch.manual_seed(0)
    model = build(config.model)
    return task_of(model)(model, open_for(config.model, config.data), config, CPU)


def step(task: AutoencoderTask, config: TrainConfig) -> dict[str, float]:
    with Feed(task.data, 0, [range(config.batch_size)], CPU) as feed:
        return task.step(feed.parts(0), Progress(0, 24, 0)).logs


def test_the_loss_is_the_negative_elbo_in_nats_per_second(tiny: Tiny) -> None:
    config = tokens(tiny)
    task = task_on(config)
    assert isinstance(task, TokenTask)
    x = task.data.train_batch(0, 0, range(4)).x
    with torch.no_grad():
        out = task.model(x)
    weighed = task.objective(out, x, Progress(0, 24, 0))
    torch.testing.assert_close(weighed.raw["kl"], out.terms["kl"])
    torch.testing.assert_close(weighed.total, out.terms["nll"] + out.terms["kl"])
    logs = step(task, config)
    assert logs["loss"] == pytest.approx(logs["nll"] + logs["kl"])


def test_free_bits_are_for_each_dimension_and_block(tiny: Tiny) -> None:
    free = task_on(tokens(tiny, objective=ObjectiveConfig(free_bits=10.0)))
    x = free.data.train_batch(0, 0, range(4)).x
    out = free.model(x)
    weighed = free.objective(out, x, Progress(0, 24, 0))
    blocks_a_second = 64.0 / 8
    expected = 8 * 10.0 * float(torch.tensor(2.0).log()) * blocks_a_second
    assert weighed.weighted["kl"] == pytest.approx(expected, rel=1e-5)
    assert float(weighed.raw["kl"].detach()) < expected


def test_a_validation_counts_codes_and_plays_nothing(tiny: Tiny) -> None:
    report = task_on(tokens(tiny)).validate(Progress(0, 24, 0))
    assert report.score == report.figures["negative_elbo"]
    assert report.figures["negative_elbo"] == pytest.approx(
        report.figures["nll"] + report.figures["kl"]
    )
    assert 0 <= report.figures["accuracy"] <= 1
    assert report.clips == () and report.statistics is not None
    assert not {"mel", "si_sdr"} & report.figures.keys()


def test_files_shorter_than_a_crop_are_trained_on_with_padding(tiny: Tiny, tmp_path: Path) -> None:
    for number, frames in enumerate((3, 5, 9)):
        codes = torch.randint(16, (1, frames), generator=torch.Generator().manual_seed(number))
        write_tokens(tmp_path / f"{number}.tokens", TokenFile(codes, (16,), "abc"))
    codec = {"path": "codec", "model_hash": "abc"}
    model = resolve(
        "token_transformer", {"size": 0, "block": 8, "codec": codec, "codebook_sizes": (16,)}
    )
    config = tokens(tiny, model=model, data=TokensData(path=str(tmp_path), segment_seconds=0.25))
    task = task_on(config)
    assert (task.data.train_batch(0, 0, range(4)).x == -1).any()
    assert step(task, config)["loss"] > 0
    assert task.validate(Progress(0, 24, 0)).figures["nll"] > 0


def test_a_killed_run_goes_on_as_if_nothing_had_been(
    tiny: Tiny, tmp_path: Path, child: Any, poison: Any, ended: Any
) -> None:
    config = tokens(tiny, steps=6, checkpoint_every=2)
    whole = run(config, tmp_path / "whole", quiet=True)

    def dies() -> None:
        poison(set(), dies_at=5)
        run(config, tmp_path / "cut", quiet=True)

    process = child(dies)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    assert (
        ended(run(None, tmp_path / "cut", resume=True, quiet=True)).differs_from(ended(whole)) == []
    )


def test_sounds_for_a_token_model_and_tokens_for_a_sound_model_are_refused(tiny: Tiny) -> None:
    with pytest.raises(DataError, match="this model learns from tokens, the data are sounds"):
        open_for(tokens(tiny).model, SynthData())
    with pytest.raises(DataError, match="this model learns from sounds, the data are tokens"):
        open_for(tiny().model, TokenSourceData())
