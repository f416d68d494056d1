"""The C kernel that a WaveNet generates with, one sample at a time: compiled on first use, called without copies.

    wave_kernel.c -> cc -O3 -march=native -> the cache folder, named by source, command and processor -> ctypes

At 30 layers of 64 channels a sample is 0.76 million multiply-adds, each with a weight of its own: microseconds of
arithmetic, to which torch adds half a millisecond of calls. Weights may be held in bf16, half the bytes to read. Where
there is no compiler, `library` says so once and is None: then torch does it (nn/wavenet.py).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.errors import OutputError
from audiovae.nn.next_sample import (
    LEVELS,
    LOG_SCALE_FLOOR,
    UNIFORMS,
    LogisticMixture,
    MuLaw,
    NextSample,
    compress,
)
from audiovae.nn.wavenet import GatedLayer, WaveNet
from audiovae.paths import cache_folder, replacing

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-O3", "-shared", "-fPIC")
TUNINGS = ("-march=native", "-mcpu=native")  # the second where a compiler for ARM lacks the first
COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS = 60.0  # it takes one or two
FAMILIES: dict[type[NextSample], int] = {MuLaw: 0, LogisticMixture: 1}  # as the source counts them
BATCH = 8  # as in the source
VECTOR = 16  # numbers that widths are filled up to
Precision = Literal["fp32", "bf16"]
log = logging.getLogger("audiovae")


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernel, compiled if it never was on this kind of processor; None, and a line in the log, if it cannot be."""
    try:
        return _opened()
    except (OSError, OutputError, subprocess.SubprocessError) as error:
        log.warning(
            "sound is generated sample by sample with torch, dozens of times slower than with a C compiler "
            "(gcc or clang), because the kernel could not be compiled: %s",
            error,
        )
        return None


def _opened() -> ctypes.CDLL:
    """The kernel from the cache, compiled into it where it is missing or does not load."""
    compiler = next(
        filter(None, map(shutil.which, [os.environ.get("CC") or "cc", *COMPILERS])), None
    )
    if compiler is None:
        raise OSError(f"none of {', '.join(COMPILERS)} is installed")
    key = "\n".join([SOURCE.read_text(encoding="utf-8"), compiler, *FLAGS, *TUNINGS, _processor()])
    name = f"wave-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    path = cache_folder("kernels") / name
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # made under another system, or damaged
            log.info("%s does not load, so it is compiled again", path)
    with replacing(path) as temporary:
        _compile(compiler, temporary)
    return ctypes.CDLL(str(path))


def _compile(compiler: str, out: Path) -> None:
    """Compile the source for this processor.  Raises OSError that quotes a compiler which fails."""
    failures = []
    for tuning in TUNINGS:
        command = [compiler, *FLAGS, tuning, "-o", str(out), str(SOURCE), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        if done.returncode == 0:
            return
        failures.append(done.stderr.strip()[:300])
    raise OSError(f"{compiler} failed: {failures[0]}")


def _processor() -> str:
    """What tells processors apart for which the same code may not run."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join([platform.system(), platform.machine(), platform.processor(), *told[:2]])


class _Net(ctypes.Structure):
    """`Net` of the source."""

    _fields_ = (
        ("width", ctypes.c_int32),
        ("layers", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("family", ctypes.c_int32),
        ("parameters", ctypes.c_int32),
        ("floor", ctypes.c_float),
        ("dilations", ctypes.c_void_p),
        ("past", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("biases", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("bent", ctypes.c_void_p),
    )


class _State(ctypes.Structure):
    """`State` of the source."""

    _fields_ = (
        ("rings", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("ahead", ctypes.c_void_p),
        ("heard", ctypes.c_void_p),
    )


class KernelVoice:
    """A batch of sounds that a WaveNet, with the weights that it has now, goes on with.  Remembers the past.

    Items are computed side by side on as many threads as torch has, and do not change each other.
    """

    def __init__(
        self,
        compiled: ctypes.CDLL,
        net: WaveNet,
        family: NextSample,
        batch: int,
        precision: Precision = "fp32",
    ) -> None:
        self.net = net
        self._run = getattr(compiled, f"wave_{precision}")
        self._run.restype = None
        width = net.width + -net.width % VECTOR
        values = family.values() if isinstance(family, MuLaw) else torch.zeros(LEVELS)
        self._packed = {
            "dilations": torch.tensor(net.dilations, dtype=torch.int32),
            "past": _joined(_past(net), precision),
            "weights": _joined(_present(net), precision),
            "biases": _biases(net),
            "values": values,
            "bent": compress(values),
        }
        self._struct = _Net(
            width=width,
            layers=len(net.dilations),
            outputs=net.outputs + -net.outputs % VECTOR,
            family=FAMILIES[type(family)],
            parameters=family.n_parameters,
            floor=LOG_SCALE_FLOOR,
            **{name: tensor.data_ptr() for name, tensor in self._packed.items()},
        )
        self._states = [
            {
                "rings": torch.zeros(sum(net.dilations) * width),
                "places": torch.zeros(len(net.dilations), dtype=torch.int32),
                "ahead": torch.zeros(len(net.dilations) * BATCH * 2 * width),
                "heard": torch.zeros(1),
            }
            for _ in range(batch)
        ]

    def draw(self, condition: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
        """Go on with each sound.  condition [B, C, F], uniforms [B, T, 2] float64, F a divisor of T -> x [B, T]."""
        x = torch.empty(uniforms.shape[:2])
        self._each(condition, uniforms, temperature, None, None, x)
        return x

    def listen(self, condition: Tensor, given: Tensor) -> Tensor:
        """Hear samples given [B, T] in place of drawn ones; return what the net said before each, [B, P, T]."""
        uniforms = torch.zeros(*given.shape, UNIFORMS, dtype=torch.float64)
        said = torch.empty(*given.shape, self._struct.parameters)
        given = given.float().contiguous()
        self._each(condition, uniforms, 0.0, given, said, torch.empty(given.shape))
        return said.mT

    def _each(
        self,
        condition: Tensor,
        uniforms: Tensor,
        temperature: float,
        given: Tensor | None,
        said: Tensor | None,
        x: Tensor,
    ) -> None:
        """Run every item; given, said and x [B, T, ...] are contiguous."""
        rows, uniforms = self._rows(condition), uniforms.double().contiguous()
        samples = uniforms.shape[1]

        def one(item: int) -> None:
            state = _State(**{name: t.data_ptr() for name, t in self._states[item].items()})
            self._run(
                ctypes.byref(self._struct),
                ctypes.byref(state),
                _address(rows, item),
                ctypes.c_int64(samples),
                ctypes.c_int64(samples // rows.shape[1]),
                _address(uniforms, item),
                ctypes.c_float(temperature),
                _address(given, item),
                _address(said, item),
                _address(x, item),
            )

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # ctypes lets go of the GIL
            list(pool.map(one, range(len(x))))

    def _rows(self, condition: Tensor) -> Tensor:
        """[B, C, F] -> [B, F, C filled up]."""
        width = self.net.width
        parts = (
            condition.float().cpu().mT.unflatten(2, (-1, width))
        )  # two of each layer, one of the head
        return functional.pad(parts, (0, -width % VECTOR)).flatten(2).contiguous()


def _past(net: WaveNet) -> list[Tensor]:
    """Each layer's matrix for what it heard `dilation` samples ago, [out, in]."""
    return [_filled(taps.weight[..., 0], net.width) for taps, _ in _layers(net)]


def _present(net: WaveNet) -> list[Tensor]:
    """All other matrices, [out, in], in the order in which a sample needs them."""
    w = net.width
    matrices = []
    for taps, mix in _layers(net):
        matrices += [_filled(taps.weight[..., 1], w), _filled(mix.weight[..., 0], w, blocks=2)]
    return [
        *matrices,
        _filled(net.head.weight[..., 0], w),
        _filled(net.last.weight[..., 0], net.outputs),
    ]


def _joined(matrices: Sequence[Tensor], precision: Precision) -> Tensor:
    """One after another: fp32 as [in, out]; bf16 as [in / 2, out, 2], so that a word holds what two inputs weigh."""
    if precision == "fp32":
        return torch.cat([matrix.T.flatten() for matrix in matrices])
    pairs = [matrix.unflatten(1, (-1, 2)).transpose(0, 1).flatten() for matrix in matrices]
    return torch.cat(pairs).to(torch.bfloat16)


def _biases(net: WaveNet) -> Tensor:
    """The first convolution and all biases that the condition does not hold, filled up, in the same order."""
    w = net.width
    parts = [_filled(net.first.weight[:, 0, 0], w), _filled(_bias(net.first), w)]
    parts += [_filled(_bias(mix), w, blocks=2) for _, mix in _layers(net)]
    return torch.cat([*parts, _filled(_bias(net.last), net.outputs)])


def _layers(net: WaveNet) -> list[tuple[nn.Conv1d, nn.Conv1d]]:
    return [(layer.taps, layer.mix) for layer in net.layers if isinstance(layer, GatedLayer)]


def _bias(conv: nn.Conv1d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def _filled(t: Tensor, rows: int, blocks: int = 1) -> Tensor:
    """[out, in] or [out] with each block of so many rows, and the columns, filled up with zeros.

    The last layer has one block of rows, for the stack's end; `blocks` gives it the second that others have.
    """
    t = t.detach().float().cpu()
    fill = [n for size in reversed((rows, *t.shape[1:])) for n in (0, -size % VECTOR)]
    parts = [functional.pad(block, fill) for block in t.split(rows)]
    return torch.cat(parts + [torch.zeros_like(parts[0])] * (blocks - len(parts)))


def _address(t: Tensor | None, item: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if t is None else t[item].data_ptr())
