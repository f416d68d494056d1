"""How long the search for the nearest codes takes, beside the libraries that quantize for most codecs.

    python benchmarks/codebook_search.py [--rounds 7] [--out docs/results/codebook_search.json] [--quick]

Microseconds a frame for 4096 random frames in one call, fp32, evaluation mode: `nearest` and `RVQ` of audiovae beside
vector-quantize-pytorch (`VectorQuantize`, `ResidualVQ`) and EnCodec's own form (transformers'
`EncodecEuclideanCodebook`, `EncodecResidualVectorQuantizer`), all with the same codebooks, taking turns round by round;
figures are medians. "product" is the one matrix product a codebook takes, x times the codes, and nothing else: no
search in fp32 is faster. "further" is by how much a code of audiovae is ever further away than the nearest one in
double precision, as a share of the distance. Residual rows count all codebooks; a difference in code starts other
residuals, so there it is the mean squared error of the sum of codes that is compared. The aims were 4 and 2 times the
peers at 1024 x 128, where the product alone allows 2.8 and 1.8, and 6 times at 1024 x 8. Rounds are kept: a run that
was stopped goes on.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
import vector_quantize_pytorch as vqpt
from _timing import cpu_seconds, machine, one_thread, open_results, paragraph, write_page
from torch import Tensor
from transformers.models.encodec.modeling_encodec import (
    EncodecEuclideanCodebook,
    EncodecResidualVectorQuantizer,
)

from audiovae.bottlenecks import RVQ, RVQConfig
from audiovae.bottlenecks.search import nearest
from audiovae.evaluation.report import ResultsFile

FRAMES = 4096
BLOCK = 256  # rows
OURS, VQPT, ENCODEC = "audiovae", "vector-quantize-pytorch", "encodec"
PRODUCT = "product"
AT_LEAST = 0.3  # CPU seconds that a figure rests on
GOALS = {  # ratios to hold
    ("1024 x 128", VQPT): 4.0,
    ("1024 x 128", ENCODEC): 2.0,
    ("1024 x 8", VQPT): 6.0,
}


class Case(NamedTuple):
    """Codebooks of a size, one or several in a row."""

    name: str
    codebooks: Tensor  # [K, V, d]
    x: Tensor  # [N, d]
    searches: dict[str, Callable[[], Tensor]]  # -> codes [N, K]


def single(size: int, dim: int, frames: int) -> Case:
    """One codebook."""
    codes, x = torch.randn(size, dim), torch.randn(frames, dim)
    lucid = vqpt.VectorQuantize(dim, size, kmeans_init=False).eval()
    lucid._codebook.embed.copy_(codes[None])
    settings = transformers.EncodecConfig(codebook_size=size, codebook_dim=dim)
    encodec = EncodecEuclideanCodebook(settings).eval()
    encodec.embed.copy_(codes)
    searches = {
        OURS: lambda: nearest(x, codes)[:, None],
        VQPT: lambda: lucid(x[None])[1][0, :, None],
        ENCODEC: lambda: encodec.encode(x)[:, None],
    }
    return Case(f"{size} x {dim}", codes[None], x, searches)


def residual(count: int, size: int, dim: int, frames: int) -> Case:
    """Several codebooks in a row, each smaller than the one before it."""
    x = torch.randn(frames, dim)
    codes = torch.randn(count, size, dim) * 0.8 ** torch.arange(count)[:, None, None]
    ours = RVQ(RVQConfig(latent_dim=dim, n_codebooks=count, codebook_size=size), None, 1.0).eval()
    lucid = vqpt.ResidualVQ(dim=dim, num_quantizers=count, codebook_size=size).eval()
    settings = transformers.EncodecConfig(
        codebook_size=size,
        codebook_dim=dim,
        sampling_rate=24_000,
        upsampling_ratios=[8, 5, 4, 2],
        target_bandwidths=[(count + 0.5) * 0.075 * math.log2(size)],  # kb/s, of 75 frames a second
    )
    encodec = EncodecResidualVectorQuantizer(settings).eval()
    for number, book in enumerate(codes):
        ours.layers[number].codebook.vectors.copy_(book)
        lucid.layers[number]._codebook.embed.copy_(book[None])
        encodec.layers[number].codebook.embed.copy_(book)
    h = x.mT[None]
    searches = {
        OURS: lambda: ours(h, sample=False).codes[0][0].mT,
        VQPT: lambda: lucid(x[None])[1][0],
        ENCODEC: lambda: encodec.encode(h)[:, 0].mT,
    }
    return Case(f"{count} x {size} x {dim}", codes, x, searches)


def product(case: Case) -> Tensor:
    """The scores of all codes, a block that stays in the cache after the other."""
    blocks = case.x.split(BLOCK)
    scores = torch.empty(BLOCK, case.codebooks.shape[1])
    for book in case.codebooks:
        for block in blocks:
            torch.mm(block, book.mT, out=scores[: len(block)])
    return scores


def microseconds(case: Case) -> dict[str, float]:
    """Per frame, of each library, and of the matrix products alone."""
    frames, found = len(case.x), {}
    for name, search in {**case.searches, PRODUCT: lambda: product(case)}.items():
        search()  # warms up
        found[name] = 1e6 * cpu_seconds(search, AT_LEAST) / frames
    return found


def further(case: Case) -> dict[str, float]:
    """How much further than the best the codes of each library are, as a share."""
    x, books = case.x.double(), case.codebooks.double()
    found = {}
    for name, search in case.searches.items():
        codes = search()
        total = sum(book[chosen] for book, chosen in zip(books, codes.unbind(1), strict=True))
        found[name] = (x - total).norm(dim=1)
    if len(books) == 1:
        best = torch.cdist(x, books[0]).amin(1)
        return {name: float((d / best - 1).max()) for name, d in found.items()}
    best = min(d.square().mean() for d in found.values())
    return {name: float(d.square().mean() / best - 1) for name, d in found.items()}


@torch.inference_mode()
def measure(out: Path, rounds: int, frames: int, narrow: bool) -> str:
    """Time all cases in turns, write the results and return the page."""
    one_thread()
    torch.manual_seed(0)
    sizes = [(1024, 128), (1024, 8), (2048, 256)][: 1 if narrow else None]
    cases = [single(size, dim, frames) for size, dim in sizes]
    cases += [residual(2 if narrow else 8, 1024, 128, frames)]
    results = open_results(out)
    rows: list[dict[str, object]] = []
    ratios: dict[str, float] = {}
    for case in cases:
        played, apart = played_rounds(case, results, rounds)
        medians = {
            f"{name}, us": statistics.median(r[name] for r in played)
            for name in (*case.searches, PRODUCT)
        }
        rows.append({"codebooks": case.name, **medians, "further": apart[OURS]})
        for peer in (VQPT, ENCODEC):
            goal = GOALS.get((case.name, peer))
            name = f"{case.name}: times {peer}" + (f" (goal {goal:g})" if goal else "")
            ratios[name] = statistics.median(r[peer] / r[OURS] for r in played)
    return write_page(results, "Codebook search", paragraph(__doc__), rows, ratios)


def played_rounds(
    case: Case, results: ResultsFile, rounds: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rounds of a case and its distances, from the results or measured now."""
    origins = [f"{VQPT} {version(VQPT)}", f"transformers {transformers.__version__}"]
    key = {
        "codebooks": case.name,
        "frames": len(case.x),
        "peers": origins,
        "machine": machine(),
    }
    apart = results.row({"phase": "distances", **key}, lambda: further(case))
    played = []
    for number in range(rounds):
        row = {"phase": "round", "round": number, **key}
        played.append(results.row(row, lambda: microseconds(case)))
        figures = {name: round(played[-1][name], 2) for name in case.searches}
        print(f"{case.name}, round {number}: {figures}", flush=True)
    return played, apart


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=paragraph(__doc__))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("docs/results/codebook_search.json"))
    parser.add_argument("--quick", action="store_true", help="few frames, one round, nothing kept")
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            page = measure(Path(folder, "codebook_search.json"), 1, 256, narrow=True)
    else:
        page = measure(options.out, options.rounds, FRAMES, narrow=False)
    print(page)


if __name__ == "__main__":
    main()
