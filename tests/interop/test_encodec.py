"""Parity with transformers' and the original `encodec` package's EncodecModel, and the strictness of the table."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from audiovae.bottlenecks import RVQConfig
from audiovae.errors import CheckpointError, ConfigError
from audiovae.interop import encodec as interop
from audiovae.interop.formats import read, written
from audiovae.models.encodec import Encodec, EncodecConfig, encodec_24k, encodec_48k
from audiovae.models.segments import codes_of_scale, scale_of_codes
from audiovae.nn.seanet import SeanetConfig

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CAUSAL = EncodecConfig(
    sample_rate=3000,
    seanet=SeanetConfig(
        width=5,
        strides=(3, 2, 5),
        kernel_size=5,
        last_kernel_size=3,
        residual_units=2,
        dilation_growth=3,
        lstm_layers=1,
    ),
    bottleneck=RVQConfig(latent_dim=7, codebook_size=16, n_codebooks=4),
    bandwidths=(0.8, 1.6),
)
CENTRED = EncodecConfig(  # as MusicGen's 32 kHz net is
    sample_rate=1000,
    channels=2,
    seanet=SeanetConfig(
        width=3, strides=(5, 2), compress=1, shortcut="identity", causal=False, padding="constant"
    ),
    bottleneck=RVQConfig(latent_dim=6, codebook_size=8, n_codebooks=3),
    bandwidths=(0.9,),
)
SEGMENTED = EncodecConfig(
    sample_rate=1500,
    channels=2,
    seanet=SeanetConfig(width=4, strides=(3, 5), causal=False, norm="group", residual_units=0),
    bottleneck=RVQConfig(latent_dim=5, codebook_size=16, n_codebooks=2),
    bandwidths=(0.8,),
    segment_seconds=0.2,  # 300 samples, 20 frames
    overlap=0.03,  # a stride of 291 samples, 19.4 frames
    normalise=True,
)
SMALL = {"causal": CAUSAL, "centred": CENTRED, "segmented": SEGMENTED}


class Coded(NamedTuple):
    """What a peer says of a sound: for each segment the encoder's output, its codes and its RMS."""

    embeddings: list[Tensor]  # [B, D, F] each
    codes: list[Tensor]  # [B, K, F] each
    scales: list[Tensor]  # [B] each; none if it has none


class Transformers:
    """transformers' net of a config."""

    def __init__(self, config: EncodecConfig) -> None:
        from transformers import EncodecConfig as TheirConfig
        from transformers import EncodecModel

        self.config = config
        self.net: Any = EncodecModel(TheirConfig(**interop.config_to_transformers(config))).eval()
        self.books = [layer.codebook for layer in self.net.quantizer.layers]
        fill(self.net)

    def ours(self) -> Encodec:
        weights = interop.weights_from_transformers(self.net.state_dict(), self.config)
        return loaded(self.config, weights)

    def encode(self, x: Tensor) -> Coded:
        embeddings = heard(self.net.encoder, lambda: self._encode(x))
        frames = [h.shape[-1] for h in embeddings]
        codes = [c[..., :n] for c, n in zip(self.out.audio_codes, frames, strict=True)]
        scales = [s.flatten() for s in self.out.audio_scales if s is not None]
        return Coded(embeddings, codes, scales)

    def _encode(self, x: Tensor) -> None:
        self.out = self.net.encode(x, bandwidth=self.config.bandwidths[-1])

    def decode(self) -> Tensor:
        """The sound that was encoded last."""
        pad = self.out.last_frame_pad_length
        return self.net.decode(
            self.out.audio_codes, self.out.audio_scales, last_frame_pad_length=pad
        ).audio_values


class Original:
    """The `encodec` package's net of a config."""

    def __init__(self, config: EncodecConfig) -> None:
        from encodec.model import EncodecModel
        from encodec.modules import SEANetDecoder, SEANetEncoder
        from encodec.quantization import ResidualVectorQuantizer

        self.config = config
        seanet, bottleneck = config.seanet, config.bottleneck
        shape = {
            "channels": config.channels,
            "dimension": bottleneck.latent_dim,
            "n_filters": seanet.width,
            "n_residual_layers": seanet.residual_units,
            "ratios": list(seanet.strides[::-1]),
            "norm": {"weight": "weight_norm", "group": "time_group_norm"}[seanet.norm],
            "kernel_size": seanet.kernel_size,
            "last_kernel_size": seanet.last_kernel_size,
            "residual_kernel_size": seanet.residual_kernel_size,
            "dilation_base": seanet.dilation_growth,
            "causal": seanet.causal,
            "pad_mode": seanet.padding,
            "true_skip": seanet.shortcut == "identity",
            "compress": seanet.compress,
            "lstm": seanet.lstm_layers,
        }
        quantizer = ResidualVectorQuantizer(
            bottleneck.latent_dim, bottleneck.n_codebooks, bottleneck.codebook_size
        )
        self.net = EncodecModel(
            SEANetEncoder(**shape),
            SEANetDecoder(**shape),
            quantizer,
            list(config.bandwidths),
            config.sample_rate,
            config.channels,
            normalize=config.normalise,
            segment=config.segment_seconds,
            overlap=config.overlap,
        ).eval()
        self.net.set_target_bandwidth(config.bandwidths[-1])
        self.books = [layer._codebook for layer in quantizer.vq.layers]
        fill(self.net)

    def ours(self) -> Encodec:
        weights = interop.weights_from_original(self.net.state_dict(), self.config)
        return loaded(self.config, weights)

    def encode(self, x: Tensor) -> Coded:
        embeddings = heard(self.net.encoder, lambda: self._encode(x))
        scales = [scale.flatten() for _, scale in self.frames if scale is not None]
        return Coded(embeddings, [codes for codes, _ in self.frames], scales)

    def _encode(self, x: Tensor) -> None:
        self.frames = self.net.encode(x)

    def decode(self) -> Tensor:
        """The sound that was encoded last."""
        decoded: Tensor = self.net.decode(self.frames)
        return decoded


@pytest.fixture(autouse=True)
def _encodec_without_torchaudio() -> Iterator[None]:
    """The package imports torchaudio for files alone, which nothing here reads."""
    if "torchaudio" in sys.modules:
        yield
        return
    stand_in = types.ModuleType("torchaudio")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = stand_in
    yield
    del sys.modules["torchaudio"]


def fill(net: nn.Module) -> None:
    """Fill everything that is stored with distinct random values; sizes that keep the deep sum tame."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in net.state_dict(keep_vars=True).items():
            if name.endswith(("original0", "weight_g", "norm.weight", "cluster_size")):
                tensor.uniform_(0.7, 1.3, generator=generator)
            elif name.endswith(("inited", "initialised")):
                tensor.uniform_(0.1, 0.9, generator=generator)
            elif name.endswith("conv.weight") and tensor.ndim == 3:
                tensor.normal_(0.0, tensor[0].numel() ** -0.5, generator=generator)
            elif "lstm.weight" in name:
                tensor.normal_(0.0, tensor.shape[1] ** -0.5, generator=generator)
            else:
                tensor.normal_(0.0, 0.3, generator=generator)


def fill_codebooks(peer: Transformers | Original, x: Tensor) -> None:
    """Codes towards random rows of what each codebook will see, so that most of them are used.

    They go as far as leaves a hundredth after the last one: then no level sees mere rounding.
    """
    generator = torch.Generator().manual_seed(3)
    rows = torch.cat([h.mT.flatten(0, 1) for h in peer.encode(x).embeddings])  # [n, D]
    share = 1 - 0.01 ** (1 / len(peer.books))
    for book in peer.books:
        count = len(book.embed)
        chosen = torch.randperm(len(rows), generator=generator)[:count]
        chosen = chosen[torch.arange(count) % len(chosen)]
        noise = torch.randn(count, rows.shape[1], generator=generator)
        centre = rows.mean(0)
        book.embed.copy_(centre + share * (rows[chosen] - centre + 0.1 * rows.std() * noise))
        rows = rows - book.embed[torch.cdist(rows, book.embed).argmin(1)]


def heard(encoder: nn.Module, encode: Any) -> list[Tensor]:
    """What an encoder gives out while something is encoded."""
    found: list[Tensor] = []
    handle = encoder.register_forward_hook(lambda module, args, out: found.append(out))
    encode()
    handle.remove()
    return found


def loaded(config: EncodecConfig, weights: dict[str, Tensor]) -> Encodec:
    with torch.device("meta"):
        model = Encodec(config).eval()
    model.load_state_dict(weights, assign=True)
    return model


def sound(config: EncodecConfig, length: int, items: int = 2) -> Tensor:
    """Noise under a slow swell, so that no two segments are equally loud."""
    generator = torch.Generator().manual_seed(1)
    x = 0.3 * torch.randn(items, config.channels, length, generator=generator)
    return x * (1.1 + torch.sin(torch.arange(length) / (0.3 * config.sample_rate)))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """The issue's bar: max|a - b| <= 1e-5 max|b|, on outputs that are not almost constant."""
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def assert_codes_equal(ours: Tensor, peer: Transformers | Original, coded: Coded) -> None:
    """Equal wherever all earlier levels agree and the two nearest codes are more than 1e-4 apart."""
    rows = torch.cat(coded.embeddings, 2).mT.flatten(0, 1).double()  # [n, D]
    theirs = torch.cat(coded.codes, 2)
    assert ours.shape == theirs.shape
    agree = torch.ones(len(rows), dtype=torch.bool)
    for k, book in enumerate(peer.books):
        mine, wanted = ours[:, k].flatten(), theirs[:, k].flatten()
        near = torch.cdist(rows, book.embed.double()).topk(2, largest=False).values
        clear = agree & ((near[:, 1] - near[:, 0]) > 1e-4 * near[:, 0])
        assert clear.float().mean() > 0.9
        assert torch.equal(mine[clear], wanted[clear])
        assert len(wanted.unique()) > len(book.embed) / 2
        agree &= mine == wanted
        rows = rows - book.embed[wanted].double()


@torch.inference_mode()
def assert_outputs_equal(peer: Transformers | Original, length: int, *, items: int = 2) -> None:
    """Codes, RMS and sound of both, of a sound of this length, the decoders on equal codes."""
    config = peer.config
    fill_codebooks(peer, sound(config, max(length, 40 * config.hop_length), items))
    model, x = peer.ours(), sound(config, length, items)
    coded, bottled = peer.encode(x), model.encode(x)
    if length >= 40 * config.hop_length:  # enough frames to use most codes
        assert_codes_equal(bottled.codes[-1], peer, coded)
    levels: tuple[Tensor, ...] = (torch.cat(coded.codes, 2),)
    if config.normalise:
        scale = torch.stack(coded.scales, 1)
        torch.testing.assert_close(scale_of_codes(bottled.codes[0]), scale, rtol=1e-5, atol=0)
        levels = (codes_of_scale(scale), *levels)
    assert_close(model.decode(levels, length), peer.decode()[..., :length])


# 4 more than a multiple of every hop; shorter than a kernel; around the beginning of a third segment
LENGTHS = {"causal": (1504, 7, 29), "centred": (1504, 3), "segmented": (1504, 600, 579, 290, 292)}


@pytest.mark.parametrize(
    ("name", "length"), [(name, length) for name, lengths in LENGTHS.items() for length in lengths]
)
def test_outputs_equal_transformers(name: str, length: int) -> None:
    assert_outputs_equal(Transformers(SMALL[name]), length)


@pytest.mark.parametrize(
    ("name", "length"), [(name, length) for name, lengths in LENGTHS.items() for length in lengths]
)
def test_outputs_equal_the_original(name: str, length: int) -> None:
    assert_outputs_equal(Original(SMALL[name]), length)


def test_outputs_equal_transformers_at_the_published_24k() -> None:
    assert_outputs_equal(Transformers(encodec_24k()), 8 * 24_000 + 123, items=1)


def test_outputs_equal_the_original_at_the_published_48k() -> None:
    assert_outputs_equal(Original(encodec_48k()), 4 * 48_000 + 123, items=1)


@pytest.mark.slow
def test_outputs_equal_the_original_at_the_published_24k() -> None:
    assert_outputs_equal(Original(encodec_24k()), 8 * 24_000 + 123, items=1)


@pytest.mark.slow
def test_outputs_equal_transformers_at_the_published_48k() -> None:
    assert_outputs_equal(Transformers(encodec_48k()), 4 * 48_000 + 123, items=1)


@pytest.mark.parametrize("kbps", CAUSAL.bandwidths)
def test_a_bandwidth_has_as_many_codebooks_as_theirs(kbps: float) -> None:
    peer, x = Transformers(CAUSAL), sound(CAUSAL, 900)
    with torch.inference_mode():
        fill_codebooks(peer, x)
        theirs = peer.net.encode(x, bandwidth=kbps)
        ours = peer.ours().encode(x).codes[0][:, : CAUSAL.codebooks_at(kbps)]
        assert torch.equal(ours, theirs.audio_codes[0])
        expected = peer.net.decode(theirs.audio_codes, theirs.audio_scales).audio_values
        assert_close(peer.ours().decode((ours,)), expected)


def test_published_configs_are_theirs() -> None:
    from transformers import EncodecConfig as TheirConfig

    assert interop.config_from_transformers(TheirConfig().to_dict()) == encodec_24k()
    theirs = {  # what the config.json of the published 48 kHz net says beside the defaults
        "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
        "sampling_rate": 48_000,
        "audio_channels": 2,
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
        "norm_type": "time_group_norm",
        "use_causal_conv": False,
    }
    assert interop.config_from_transformers(TheirConfig(**theirs).to_dict()) == encodec_48k()


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL.keys())
def test_configs_go_there_and_back(config: EncodecConfig) -> None:
    assert interop.config_from_transformers(interop.config_to_transformers(config)) == config


@pytest.mark.parametrize("config", [encodec_24k(), encodec_48k()], ids=["24k", "48k"])
def test_an_original_checkpoint_tells_its_net(config: EncodecConfig) -> None:
    with torch.device("meta"):
        state = interop.weights_to_original(Encodec(config).state_dict(), config)
    assert interop.config_from_original(state) == config


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL.keys())
def test_peers_load_what_we_export(config: EncodecConfig) -> None:
    model, x = Encodec(config).eval(), sound(config, 700)
    fill(model)
    ours, state = model(x), model.state_dict()
    with torch.inference_mode():
        for peer, weights in (
            (
                Transformers(config),
                interop.weights_to_transformers(state, config, parametrised=True),
            ),
            (Original(config), interop.weights_to_original(state, config)),
        ):
            peer.net.load_state_dict(weights, strict=True)
            coded = peer.encode(x)
            assert torch.equal(torch.cat(coded.codes, 2), ours.codes[-1])
            assert_close(ours.x_hat, peer.decode()[..., :700])


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL.keys())
def test_there_and_back_is_the_same_in_every_spelling(config: EncodecConfig) -> None:
    model = Encodec(config)
    fill(model)
    ours = model.state_dict()
    for parametrised in (False, True):
        theirs = interop.weights_to_transformers(ours, config, parametrised=parametrised)
        if config.seanet.norm == "weight":
            assert ("encoder.layers.0.conv.weight_g" in theirs) is not parametrised
        assert_same(interop.weights_from_transformers(theirs, config), ours)
    original = interop.weights_to_original(ours, config)
    assert_same(interop.weights_from_original(original, config), ours)


def assert_same(back: dict[str, Tensor], ours: dict[str, Tensor]) -> None:
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_transformers_files_are_read_and_written(tmp_path: Path) -> None:
    from transformers import EncodecModel

    peer, x = Transformers(CAUSAL), sound(CAUSAL, 700)
    with torch.inference_mode():
        fill_codebooks(peer, x)
        peer.net.save_pretrained(tmp_path / "theirs")
        config, weights = read("transformers", tmp_path / "theirs")
        assert config == CAUSAL
        model = loaded(CAUSAL, weights)
        assert torch.equal(model.encode(x).codes[0], peer.encode(x).codes[0])

        (tmp_path / "ours").mkdir()
        for name, content in written("transformers", model).items():
            (tmp_path / "ours" / name).write_bytes(content)
        again = EncodecModel.from_pretrained(tmp_path / "ours").eval()
        codes = again.encode(x, bandwidth=CAUSAL.bandwidths[-1])
        assert torch.equal(codes.audio_codes, peer.out.audio_codes)
        assert_close(
            again.decode(codes.audio_codes, codes.audio_scales).audio_values, peer.decode()
        )


@pytest.mark.parametrize("inside", [False, True], ids=["bare", "AudioCraft"])
def test_original_files_are_read(inside: bool, tmp_path: Path) -> None:
    config, file = encodec_24k(), tmp_path / "encodec_24khz.th"
    with torch.device("meta"):
        names = interop.weights_to_original(Encodec(config).state_dict(), config)
    small = torch.tensor([0.25])  # one number stands for a whole tensor, also in the file
    state = {name: small.expand(weight.shape) for name, weight in names.items()}
    torch.save({"best_state": state, "xp.cfg": "..."} if inside else state, file)
    found, weights = read("encodec", file)
    assert found == config
    assert weights["decoder.last.conv.bias"].tolist() == [0.25]
    state["quantizer.vq.layers.32._codebook.embed"] = small
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=r"beside what is known: quantizer\.vq\.layers\.32"):
        read("encodec", file)


def test_missing_left_over_and_misshapen_weights_are_named() -> None:
    ours = Encodec(CAUSAL).state_dict()
    state = interop.weights_to_transformers(ours, CAUSAL)
    lacking = {k: w for k, w in state.items() if "encoder.layers.13" not in k}
    with pytest.raises(
        CheckpointError, match=r"lack: encoder\.layers\.13\.lstm\.bias_hh_l0, .* more"
    ):
        interop.weights_from_transformers(lacking, CAUSAL)
    with pytest.raises(CheckpointError, match=r"beside what is known: decoder\.layers\.9\.extra;"):
        interop.weights_from_transformers(
            state | {"decoder.layers.9.extra": torch.zeros(1)}, CAUSAL
        )
    book = "quantizer.layers.2.codebook.embed"
    with pytest.raises(CheckpointError, match=rf"{book} \(3, 2\) instead of \(16, 7\)"):
        interop.weights_from_transformers(state | {book: torch.zeros(3, 2)}, CAUSAL)
    original = interop.weights_to_original(ours, CAUSAL)
    del original["quantizer.vq.layers.1._codebook.inited"]
    with pytest.raises(
        CheckpointError, match=r"lack: quantizer\.vq\.layers\.1\._codebook\.inited;"
    ):
        interop.weights_from_original(original, CAUSAL)
    with pytest.raises(CheckpointError, match=r"lack: bottleneck\.layers\.0"):
        interop.weights_to_original({k: w for k, w in ours.items() if "bottle" not in k}, CAUSAL)


def test_configs_without_a_counterpart_are_refused() -> None:
    values = interop.config_to_transformers(CAUSAL)
    for key, value in {"codebook_dim": 3, "trim_right_ratio": 0.5}.items():
        with pytest.raises(ConfigError, match=rf"{key} must be .* got {value}"):
            interop.config_from_transformers(values | {key: value})
    with pytest.raises(ConfigError, match=r"seanet.norm: .*'weight'.* got 'layer_norm'"):
        interop.config_from_transformers(values | {"norm_type": "layer_norm"})
    with pytest.raises(ConfigError, match="EncodecModel: it lacks 'num_filters'"):
        interop.config_from_transformers({k: v for k, v in values.items() if k != "num_filters"})


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("seanet", {"norm": "none"}, "norm weight or group, got none"),
        ("seanet", {"lstm_layers": 0}, "an LSTM, got 0 layers"),
        ("bottleneck", {"update": "gradient"}, "update ema, got gradient"),
        ("bottleneck", {"codebook_dim": 3}, "codebook_dim None, got 3"),
        ("bottleneck", {"normalise": True}, "normalise False, got True"),
        ("bottleneck", {"codebook_size": 15}, "a codebook_size that is a power of two, got 15"),
        ("bottleneck", {"n_codebooks": 5}, "bandwidths for all 5 codebooks, got them for 4"),
    ],
)
def test_nets_that_transformers_has_not_are_refused(
    part: str, change: dict[str, Any], message: str
) -> None:
    changed = getattr(CAUSAL, part).model_copy(update=change)
    with pytest.raises(ConfigError, match=f"needs {message}"):
        interop.config_to_transformers(CAUSAL.model_copy(update={part: changed}))
