"""Timing on one thread of a machine that may be shared: CPU seconds, rounds in turns, medians."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from _peers import Net

from audiovae.evaluation.report import ResultsFile, table
from audiovae.memory import keep_freed_memory
from audiovae.paths import replacing

PRECISIONS = ("fp32", "bf16")

Round = Mapping[str, float]  # "name precision" -> seconds of audio per CPU second


def one_thread() -> None:
    """Compute on one thread, with the same treatment of memory and of tiny numbers for every net."""
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def precision(name: str) -> AbstractContextManager[object]:
    """The context in which a net runs as "fp32" or "bf16" (autocast)."""
    return torch.autocast("cpu", torch.bfloat16) if name == "bf16" else nullcontext()


def cpu_seconds(work: Callable[[], object], at_least: float) -> float:
    """The median CPU seconds of a call, over calls that take `at_least` seconds together."""
    times: list[float] = []
    while sum(times) < at_least or not times:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def best(rounds: Sequence[Round], name: str) -> str:
    """The precision in which a net was fastest."""
    return max(PRECISIONS, key=lambda kind: statistics.median(r[f"{name} {kind}"] for r in rounds))


def ratios(rounds: Sequence[Round], pairs: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Medians over rounds of one speed over another: best against best, and like against like."""
    found: dict[str, float] = {}
    for ours, theirs in pairs:
        kinds = {"": (best(rounds, ours), best(rounds, theirs))}
        kinds |= {f" {kind}": (kind, kind) for kind in PRECISIONS}
        for label, (our_kind, their_kind) in kinds.items():
            found[f"{ours}/{theirs}{label}"] = statistics.median(
                r[f"{ours} {our_kind}"] / r[f"{theirs} {their_kind}"] for r in rounds
            )
    return found


def identity(name: str, net: Net) -> dict[str, Any]:
    """What tells a net's rows from those of another net or machine."""
    weights = sum(p.numel() for p in net.module.parameters())
    return {"net": name, "origin": net.origin, "weights": weights, "machine": machine()}


def machine() -> str:
    """Processor, cores and torch of this machine, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    bf16 = "with" if torch.cpu._is_avx512_bf16_supported() else "without"
    return f"{name}, {os.cpu_count()} cores, {bf16} AVX-512 BF16, torch {torch.__version__}"


def open_results(path: Path) -> ResultsFile:
    """The results in a file, with this machine's name for what is measured now."""
    return ResultsFile(path, machine())


def paragraph(doc: str | None) -> str:
    """The last paragraph of a script's docstring in one line: what the page says of the measurement."""
    return " ".join((doc or "").strip().split("\n\n")[-1].split())


def measured(results: ResultsFile, threads: int) -> str:
    """When and where the rows that a page quotes were measured: a line for each machine."""
    lines = []
    for place in sorted({place for place, _ in results.measured}):
        dates = sorted({date for where, date in results.measured if where == place})
        span = " to ".join(dict.fromkeys((dates[0], dates[-1])))
        lines.append(f"{span}, {threads} thread{'s' * (threads > 1)} of: {place}.")
    return "\n".join(lines)


def write_page(
    results: ResultsFile,
    title: str,
    explanation: str,
    rows: list[dict[str, Any]],
    found: Mapping[str, float] | None = None,
    threads: int = 1,
) -> str:
    """Store the ratios, write the page that quotes the results beside them, return it."""
    parts = [f"# {title}", explanation, measured(results, threads), table(rows)]
    if found:
        results.put("ratios", dict(found))
        parts.append(table([{"ratio": name, "times": value} for name, value in found.items()]))
    page = "\n\n".join(parts) + "\n"
    with replacing(results.path.with_suffix(".md")) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return page
