"""Presets by name: arguments, fields, and the errors that help."""

import pytest

from audiovae.bottlenecks import RVQConfig
from audiovae.config import parse
from audiovae.errors import ConfigError
from audiovae.models import MODELS, PRESETS, AnyModelConfig, build, resolve


@pytest.mark.parametrize("name", PRESETS)
def test_a_saved_config_builds_the_same_model(name):
    config = resolve(name, {"size": 0})
    again = parse(AnyModelConfig, config.model_dump(mode="json"))
    assert again == config
    ours, theirs = build(config).state_dict(), build(again).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_every_family_has_a_preset_and_every_preset_a_family():
    assert {resolve(name, {"size": 0}).kind for name in PRESETS} == set(MODELS)


def test_arguments_come_first_then_fields_and_text_is_read():
    config = resolve("spec_frame", {"size": "1", "kernel_size": "5", "bottleneck.latent_dim": 7})
    assert (config.latent_width, config.kernel_size) == (192, 5)
    assert config.bottleneck.latent_dim == 7
    assert config == resolve(
        "spec_frame", {"size": 1, "kernel_size": 5, "bottleneck": {"latent_dim": 7}}
    )


def test_a_bottleneck_of_another_kind_begins_with_its_own_defaults():
    given = {"size": 0, "bottleneck.n_codebooks": 3, "bottleneck.kind": "rvq"}
    config = resolve("spec_frame", given)
    assert config.bottleneck == RVQConfig(n_codebooks=3)
    assert config == resolve("spec_frame", {"size": 0, "bottleneck": RVQConfig(n_codebooks=3)})
    assert build(config).codebook_sizes == ((1024,) * 3,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("spec_fram", {}, "'spec_fram' is not a preset; did you mean 'spec_frame'"),
        ("spec_frame", {"sise": 2}, "model.sise is not a setting.*did you mean 'size'"),
        ("spec_frame", {"kernel_sise": 2}, "did you mean 'kernel_size'"),
        ("spec_frame", {"bottleneck.latent_dims": 2}, "latent_dims.*did you mean 'latent_dim'"),
        (
            "spec_frame",
            {"bottleneck": {"kind": "rvq", "n_codebook": 2}},
            "model.bottleneck.n_codebook is not a setting; did you mean 'n_codebooks'",
        ),
        ("spec_frame", {"bottleneck.kind": "vqq"}, "model.bottleneck: .*'vqq'.*'gaussian', 'vq'"),
        ("spec_frame", {"size": "two"}, "model.size: .*integer.*got 'two'"),
        ("spec_frame", {"size": 99}, "size must be one of .*got 99"),
        (
            "spec_frame",
            {"kernel_size": 0},
            "model.kernel_size: .*greater than or equal to 1, got 0",
        ),
        ("spec_frame", {"frame_hop": 500}, r"win_length must be a multiple of frame_hop \(500\)"),
    ],
)
def test_a_wrong_option_is_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        resolve(name, options)
