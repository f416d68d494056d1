"""The table that diffusers' Oobleck and transformers' DAC share: nets on the same waveform stages, named alike."""

from __future__ import annotations

Parameters = tuple[tuple[str, str], ...]  # theirs, ours

CONV: Parameters = (
    ("weight_g", "parametrizations.weight.original0"),
    ("weight_v", "parametrizations.weight.original1"),
    ("bias", "bias"),
)


def waveform_modules(
    snake: Parameters, last: Parameters
) -> tuple[tuple[str, str, Parameters], ...]:
    """Encoder and decoder: theirs, ours, what it is.  `last` is what the decoder's last convolution holds.

    `keymap.spell` says what the places in braces count.
    """
    return (
        ("encoder.conv1", "encoder.first", CONV),
        ("encoder.block.{i}.res_unit{j1}.snake1", "encoder.stages.{i}.units.{j}.branch.0", snake),
        ("encoder.block.{i}.res_unit{j1}.conv1", "encoder.stages.{i}.units.{j}.branch.1", CONV),
        ("encoder.block.{i}.res_unit{j1}.snake2", "encoder.stages.{i}.units.{j}.branch.2", snake),
        ("encoder.block.{i}.res_unit{j1}.conv2", "encoder.stages.{i}.units.{j}.branch.3", CONV),
        ("encoder.block.{i}.snake1", "encoder.stages.{i}.snake", snake),
        ("encoder.block.{i}.conv1", "encoder.stages.{i}.resample", CONV),
        ("encoder.snake1", "encoder.snake", snake),
        ("encoder.conv2", "encoder.last", CONV),
        ("decoder.conv1", "decoder.first", CONV),
        ("decoder.block.{i}.snake1", "decoder.stages.{i}.snake", snake),
        ("decoder.block.{i}.conv_t1", "decoder.stages.{i}.resample", CONV),
        ("decoder.block.{i}.res_unit{j1}.snake1", "decoder.stages.{i}.units.{j}.branch.0", snake),
        ("decoder.block.{i}.res_unit{j1}.conv1", "decoder.stages.{i}.units.{j}.branch.1", CONV),
        ("decoder.block.{i}.res_unit{j1}.snake2", "decoder.stages.{i}.units.{j}.branch.2", snake),
        ("decoder.block.{i}.res_unit{j1}.conv2", "decoder.stages.{i}.units.{j}.branch.3", CONV),
        ("decoder.snake1", "decoder.snake", snake),
        ("decoder.conv2", "decoder.last", last),
    )
