"""The compiled kernel says what torch says, and is compiled once, or gives way to torch with one line."""

import ctypes
import logging

import pytest
import torch

from audiovae.models import wave_kernel
from audiovae.models.wave_ar import TorchVoice
from audiovae.models.wave_kernel import KernelVoice
from audiovae.nn.next_sample import LogisticMixture, MuLaw, compress
from audiovae.nn.wavenet import WaveNet

FAMILIES = {"mu_law": MuLaw(), "logistic_mixture": LogisticMixture(3)}
SHAPES = {"odd": (5, (1, 2, 4, 8, 11)), "one vector": (16, (1, 1)), "tiles": (144, (3, 9))}
HOP, FRAMES = 7, 9

needs_compiler = pytest.mark.skipif(
    wave_kernel.library() is None, reason="the kernel needs a C compiler"
)


def weights_that_matter(width, dilations, family, seed=0):
    torch.manual_seed(seed)
    net = WaveNet(width, dilations, family.n_parameters)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.7 * max(parameter[0].numel(), 4) ** -0.5)
    return net.requires_grad_(False)


def conditions(net, batch=2):
    return torch.randn(batch, net.condition_width, FRAMES)


def uniforms(batch=2):
    return torch.rand(batch, HOP * FRAMES, 2, dtype=torch.float64)


def teacher_forced(net, condition, x):
    heard = compress(torch.nn.functional.pad(x[:, :-1], (1, 0)))
    return net(heard, condition)


@needs_compiler
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_said_before_true_samples_equals_torch(family, shape, precision):
    """In bf16 the weights are rounded, and nothing else is."""
    net = weights_that_matter(*shape, family)
    condition, x = conditions(net), family.quantise(0.5 * torch.randn(2, HOP * FRAMES))
    said = KernelVoice(wave_kernel.library(), net, family, 2, precision).listen(condition, x)
    if precision == "bf16":
        for layer in (*net.layers, net.head, net.last):
            for name, weight in layer.named_parameters():
                if "weight" in name:
                    weight.copy_(weight.bfloat16())
    expected = teacher_forced(net, condition, x)
    assert expected.std() > 0.1
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


@needs_compiler
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_drawn_samples_equal_torch_until_the_first_near_tie(family, temperature):
    net = weights_that_matter(5, (1, 2, 8, 11), family)
    condition, chance = conditions(net), uniforms()
    ours = KernelVoice(wave_kernel.library(), net, family, 2).draw(condition, chance, temperature)
    theirs = TorchVoice(net, family, 2).draw(condition, chance, temperature)
    if temperature:
        assert ours.std() > 0.05 and ours.unique().numel() > 10
    for item in range(2):
        differs = (ours[item] != theirs[item]).nonzero().flatten().tolist()
        if (
            differs
        ):  # at a tie a last digit decides, and both are right: the two neighbours of a step
            first = differs[0]
            step = 1 / 32_768 if isinstance(family, LogisticMixture) else 1 / 128
            gap = (compress(ours) - compress(theirs))[item, first].abs()
            assert first > 10
            assert min(gap.item(), (ours - theirs)[item, first].abs().item()) <= step * (1 + 1e-3)


@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pieces_equal_the_whole_and_items_equal_the_batch(precision):
    net = weights_that_matter(5, (1, 2, 8, 11), MuLaw())
    condition, chance = conditions(net, 3), uniforms(3)

    def voice(batch):
        return KernelVoice(wave_kernel.library(), net, MuLaw(), batch, precision)

    whole = voice(3).draw(condition, chance, 1.0)
    going_on, cut = voice(3), 4
    pieces = [
        going_on.draw(condition[..., :cut], chance[:, : cut * HOP], 1.0),
        going_on.draw(condition[..., cut:], chance[:, cut * HOP :], 1.0),
    ]
    assert torch.equal(torch.cat(pieces, 1), whole)
    alone = [voice(1).draw(condition[i : i + 1], chance[i : i + 1], 1.0) for i in range(3)]
    assert torch.equal(torch.cat(alone), whole)


@needs_compiler
def test_saturated_gates_stay_finite():
    net = weights_that_matter(16, (1, 2), MuLaw())
    condition = 1e4 * conditions(net)
    x = 0.5 * torch.randn(2, HOP * FRAMES)
    said = KernelVoice(wave_kernel.library(), net, MuLaw(), 2).listen(condition, x)
    torch.testing.assert_close(said, teacher_forced(net, condition, x), rtol=1e-4, atol=1e-2)


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that is quick, as it gives out what was compiled before; returns its runs, a line each."""
    runs, made = tmp_path / "runs", wave_kernel.library()._name
    script = tmp_path / "quickcc"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {runs}\nwhile [ "$1" != -o ]; do shift; done\ncp {made} "$2"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    return lambda: runs.read_text().splitlines()


@needs_compiler
def test_it_is_compiled_once_and_again_where_the_file_does_not_load(
    tmp_path, monkeypatch, compiler
):
    monkeypatch.setenv("AUDIOVAE_CACHE", str(tmp_path / "a"))
    load = wave_kernel.library.__wrapped__
    assert isinstance(load(), ctypes.CDLL) and isinstance(load(), ctypes.CDLL)
    assert len(compiler()) == 1
    (file,) = (tmp_path / "a" / "kernels").iterdir()
    assert str(file) not in compiler()[0]  # it is written beside its place and moved there whole
    damaged = tmp_path / "b" / "kernels" / file.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"not a library")
    monkeypatch.setenv("AUDIOVAE_CACHE", str(tmp_path / "b"))
    assert isinstance(load(), ctypes.CDLL)
    assert len(compiler()) == 2 and damaged.stat().st_size > 1000


@needs_compiler
def test_another_processor_has_its_own(tmp_path, monkeypatch, compiler):
    monkeypatch.setenv("AUDIOVAE_CACHE", str(tmp_path / "a"))
    load = wave_kernel.library.__wrapped__
    load()
    monkeypatch.setattr(wave_kernel, "_processor", lambda: "another one")
    load()
    assert len(compiler()) == len(list((tmp_path / "a" / "kernels").iterdir())) == 2


def test_without_a_compiler_one_line_says_why(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with caplog.at_level(logging.WARNING, "audiovae"):
        assert wave_kernel.library.__wrapped__() is None
    assert len(caplog.records) == 1
    assert "none of cc, gcc, clang is installed" in caplog.text
    assert "slower than with a C compiler" in caplog.text


@needs_compiler
def test_a_compiler_without_march_gets_mcpu(tmp_path, monkeypatch, compiler):
    script = tmp_path / "quickcc"
    text = script.read_text()
    refusing = 'case "$*" in *-march*) echo unsupported >&2; exit 1;; esac\n'
    script.write_text(text.replace("\n", "\n" + refusing, 1))
    monkeypatch.setenv("AUDIOVAE_CACHE", str(tmp_path / "a"))
    assert isinstance(wave_kernel.library.__wrapped__(), ctypes.CDLL)
    (run,) = compiler()
    assert "-mcpu=native" in run


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch, caplog):
    compiler = tmp_path / "mycc"
    compiler.write_text("#!/bin/sh\necho no such processor >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("AUDIOVAE_CACHE", str(tmp_path / "cache"))
    with caplog.at_level(logging.WARNING, "audiovae"):
        assert wave_kernel.library.__wrapped__() is None
    assert "mycc failed: no such processor" in caplog.text
    assert list((tmp_path / "cache" / "kernels").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUDIOVAE_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("CC", "/bin/true")
    with caplog.at_level(logging.WARNING, "audiovae"):
        assert wave_kernel.library.__wrapped__() is None
    assert "cannot make the cache folder" in caplog.text
