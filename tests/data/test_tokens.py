"""Token files and crops of them: nothing lost, nothing foreign, pure functions of (seed, step, item)."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from audiovae.data import (
    Dataset,
    NotesData,
    SynthData,
    TokensData,
    TokenSpec,
    open_dataset,
    open_tokens,
)
from audiovae.data.tokens import TokenFile, read_tokens, write_tokens
from audiovae.errors import DataError

CODEC = "c0dec" * 12
SPEC = TokenSpec((5, 1024), token_rate=10.0, multiple_of=4, codec=CODEC)


def tokens(frames: int, seed: int = 0) -> TokenFile:
    chance = torch.Generator().manual_seed(seed)
    rows = [torch.randint(size, (frames,), generator=chance) for size in SPEC.codebook_sizes]
    return TokenFile(torch.stack(rows), SPEC.codebook_sizes, CODEC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve files of 3 to 58 frames."""
    (tmp_path / "deep").mkdir()
    for number in range(12):
        write_tokens(tmp_path / "deep" / f"{number}.wav.tokens", tokens(3 + 5 * number, number))
    return tmp_path


def opened(folder: Path, seconds: float = 1.3, spec: TokenSpec = SPEC) -> Dataset:
    return open_tokens(TokensData(path=str(folder), segment_seconds=seconds), spec)


@pytest.mark.parametrize("sizes", [(2,), (1 << 15, 3), ((1 << 15) + 1, 70_000)])
def test_a_file_returns_what_was_written(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    codes = torch.stack([torch.tensor([0, size - 1, size // 2]) for size in sizes])
    write_tokens(tmp_path / "a.tokens", TokenFile(codes, sizes, CODEC))
    back = read_tokens(tmp_path / "a.tokens")
    assert torch.equal(back.codes, codes) and back[1:] == (sizes, CODEC)


def test_crops_are_stretches_of_the_training_files_padded_past_their_end(folder: Path) -> None:
    data = opened(folder)
    batch = data.train_batch(0, 0, range(64))
    assert batch.x.shape == (64, 2, 16)  # 13 frames rounded up to the block
    files = {
        str(path.relative_to(folder)): read_tokens(path).codes for path in folder.rglob("*.tokens")
    }
    valid = {source.split("@")[0] for each in data.valid_batches(5) for source in each.sources}
    assert len(valid) == 1
    for x, mask, source in zip(batch.x, batch.mask, batch.sources, strict=True):
        name, start = source.split("@")
        first = round(float(start) * 10)
        whole = files[name][:, first : first + 16]
        assert name not in valid
        assert torch.equal(x[:, : whole.shape[1]], whole)
        assert (x[:, whole.shape[1] :] == -1).all()
        assert mask.sum() == whole.shape[1]


def test_an_item_depends_on_seed_step_and_item_only(folder: Path) -> None:
    whole = opened(folder).train_batch(3, 4, range(8)).x
    halves = [opened(folder).train_batch(3, 4, items).x for items in (range(3), range(3, 8))]
    assert torch.equal(whole, torch.cat(halves))
    assert not torch.equal(whole, opened(folder).train_batch(3, 5, range(8)).x)


def test_validation_covers_the_files_side_by_side_and_is_always_the_same(tmp_path: Path) -> None:
    write_tokens(tmp_path / "one.tokens", tokens(1_000))
    data = opened(tmp_path, 1.2)
    crops = torch.cat([batch.x for batch in data.valid_batches(3)])  # the last tenth, 12 at a time
    joined = crops.transpose(0, 1).flatten(1)
    assert torch.equal(joined[:, :100], tokens(1_000).codes[:, 900:])
    assert (joined[:, 100:] == -1).all()
    trained = data.train_batch(0, 0, range(64))
    assert max(float(source.split("@")[1]) for source in trained.sources) <= (900 - 12) / 10


def test_the_fingerprint_is_of_the_codes_not_of_their_place(folder: Path, tmp_path: Path) -> None:
    before = opened(folder).fingerprint
    (folder / "deep").rename(folder / "other")
    assert opened(folder).fingerprint == before
    assert opened(folder, 2.0).fingerprint != before
    write_tokens(folder / "other" / "0.wav.tokens", tokens(3, 99))
    assert opened(folder).fingerprint != before
    assert "12 token files, 0.6 minutes to train on" in opened(folder).describe()


def test_tokens_of_another_codec_are_refused_with_both_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"codec c0decc0decc0, the model's codec is abcabcabcabc;"):
        opened(folder, spec=SPEC._replace(codec="abc" * 20))
    with pytest.raises(DataError, match=r"model's codec is none: set model.codec"):
        opened(folder, spec=SPEC._replace(codec=None))
    with pytest.raises(DataError, match=r"has codebooks of \(5, 1024\), the model has \(5, 512\)"):
        opened(folder, spec=SPEC._replace(codebook_sizes=(5, 512)))


def test_what_is_no_token_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    with pytest.raises(DataError, match=r"there is no file \*.tokens in .*; `audiovae tokenise"):
        opened(tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        read_tokens(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="is not a token file, or is damaged"):
        read_tokens(path)
    header = {"format": "1", "codec": CODEC, "codebook_sizes": "4"}
    for codes in (torch.tensor([[4]]), torch.tensor([[-1]]), torch.zeros(2, 1), torch.zeros(1, 0)):
        safetensors.torch.save_file({"codes": codes.short()}, path, metadata=header)
        with pytest.raises(DataError, match="is not a token file, or is damaged"):
            read_tokens(path)
    newer = header | {"format": "2"}
    safetensors.torch.save_file({"codes": torch.zeros(1, 1).short()}, path, metadata=newer)
    with pytest.raises(DataError, match="has format 2, this audiovae reads up to 1"):
        read_tokens(path)
    write_tokens(path, tokens(1))
    with pytest.raises(DataError, match=r"a.tokens, the only token file, has 1 frame"):
        opened(tmp_path)


def test_sounds_are_no_tokens_and_tokens_no_sounds() -> None:
    for sounds in (SynthData(), NotesData()):
        with pytest.raises(DataError, match="learns from tokens, the data are sounds"):
            open_tokens(sounds, SPEC)
    with pytest.raises(DataError, match="learns from sounds, the data are tokens"):
        open_dataset(TokensData(path="x"), sample_rate=8_000, channels=1)
