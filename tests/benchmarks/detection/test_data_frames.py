"""Frames of videos: frame k is frame k, whatever was read before and by whom."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.detection.data import frames
from benchmarks.detection.data.layout import Layout
from benchmarks.detection.data.mini_videos import HEIGHT, WIDTH, write_video

LAYOUT = Layout("a data set", "https://example.org")


def test_a_smaller_image_has_means() -> None:
    image = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3)
    small = frames.resize(image, 2)
    expected = image.reshape(2, 2, 2, 4, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert small.dtype == torch.uint8
    assert torch.equal(small, torch.from_numpy(np.rint(expected)).byte())


def numbered(count: int, start: int = 0) -> frames.Pixels:
    """Frames with their number in them, as a row of eight black or white squares, and noise."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)
    bits = np.arange(start, start + count)[:, None] >> np.arange(8) & 1
    video[:, :32] = np.repeat(255 * bits, WIDTH // 8, axis=1)[:, None, :, None]
    return video


def numbers(clip: Tensor) -> list[int]:
    """What :func:`numbered` wrote, from frames (length, 3, S, S)."""
    size = clip.shape[-1]
    squares = clip.float()[:, :, size // 8, size // 16 :: size // 8].mean(dim=1)
    return ((squares > clip.float().mean()) * 2 ** torch.arange(8)).sum(dim=1).tolist()


def write_numbered(path: Path, count: int, start: int = 0) -> Path:
    write_video(path, numbered(count, start))
    return path


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 frames with a key frame every 12."""
    return write_numbered(tmp_path_factory.mktemp("video") / "01.avi", 150)


@pytest.mark.usefixtures("nothing_kept")
def test_frame_k_is_frame_k_wherever_the_decoder_was(long_video: Path) -> None:
    video = frames.VideoFile(long_video, 32, LAYOUT)
    assert len(video) == 150
    assert numbers(video.read(0, 150)) == list(range(150))
    for number in np.random.default_rng(0).permutation(150).tolist():
        assert numbers(video.read(number, 1)) == [number]
    assert numbers(video.read(149, 1)) == [149]
    assert numbers(video.read(0, 5)) == list(range(5))


def test_frames_that_are_kept_are_the_same(long_video: Path) -> None:
    video = frames.VideoFile(long_video, 32, LAYOUT)
    first = video.read(20, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames.VideoFile, "_decode", None)  # what is kept needs none
        assert torch.equal(video.read(22, 5), first[2:7])
    for start in (12, 18, 26):  # some are kept, some are not
        assert numbers(video.read(start, 10)) == list(range(start, start + 10))
    assert video.read(20, 10).shape == (10, 3, 32, 32)
    assert frames.VideoFile(long_video, 16, LAYOUT).read(20, 10).shape == (10, 3, 16, 16)


def test_frames_are_kept_up_to_a_limit() -> None:
    kept = frames._Kept(2 * 300)
    keys = [(Path("a"), 10, number) for number in range(3)]
    for key in keys[:2]:
        kept.put(key, torch.full((3, 10, 10), key[2], dtype=torch.uint8))
    assert kept.get(keys[0]) is not None  # now the other is the oldest
    kept.put(keys[2], torch.zeros(3, 10, 10, dtype=torch.uint8))
    assert [kept.get(key) is not None for key in keys] == [True, False, True]


@pytest.mark.parametrize(("first", "length"), [(-1, 2), (149, 2), (150, 1), (3, 0)])
def test_frames_outside_are_refused(first: int, length: int, long_video: Path) -> None:
    message = rf"has the frames \[0, 150\); got \[{first}, {first + length}\)"
    with pytest.raises(IndexError, match=message):
        frames.VideoFile(long_video, 32, LAYOUT).read(first, length)


def test_clips_are_all_of_each_video(tmp_path: Path) -> None:
    """Of 6, 1 and 4 frames: clips of 3 never go from one video into the next."""
    paths = [
        write_numbered(tmp_path / f"{start}.avi", count, start)
        for start, count in ((0, 6), (50, 1), (100, 4))
    ]
    clips = frames.Clips([frames.VideoFile(path, 32, LAYOUT) for path in paths], 3)
    firsts = [0, 1, 2, 3, 100, 101]
    assert len(clips) == len(firsts)
    for index, first in enumerate(firsts):
        clip = clips[index]
        assert clip.shape == (3, 3, 32, 32) and clip.dtype == torch.float32
        assert -1 <= clip.min() < -0.9 and 0.9 < clip.max() <= 1
        assert numbers(clip) == [first, first + 1, first + 2]
    for index in (-1, 6):
        with pytest.raises(IndexError, match=f"there are 6 clips; got {index}"):
            clips[index]


def test_clips_can_be_sent_to_a_process(long_video: Path) -> None:
    clips = frames.Clips([frames.VideoFile(long_video, 32, LAYOUT)], 2)
    assert numbers(pickle.loads(pickle.dumps(clips))[7]) == [7, 8]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.usefixtures("nothing_kept")
def test_workers_do_not_disturb_each_other(long_video: Path) -> None:
    """They inherit a decoder that is open; file offsets are shared between processes."""
    clips = frames.Clips([frames.VideoFile(long_video, 32, LAYOUT)], 2)
    clips[0]
    order = np.random.default_rng(0).permutation(len(clips)).tolist()
    loader = DataLoader(clips, batch_size=5, sampler=order, num_workers=2)
    for index, batch in enumerate(loader):
        expected = order[5 * index : 5 * index + 5]
        assert [numbers(clip) for clip in batch] == [[first, first + 1] for first in expected]
        assert numbers(clips[expected[0]]) == [expected[0], expected[0] + 1]  # in between, here
