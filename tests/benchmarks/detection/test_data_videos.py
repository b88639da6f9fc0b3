"""Videos, labels and regions as they were drawn."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.detection import data
from benchmarks.detection.data import (
    Region,
    load_videos,
    mini_videos,
)

from .data_cases import H, W, Written, write_masks


def test_a_mask_is_where_the_abnormal_thing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, a video without the event differs from it in the masked pixels alone."""
    monkeypatch.setattr(mini_videos, "_NOISE", 0.0)
    without, with_events = (
        mini_videos.render("brick", 40, events, np.random.default_rng(1))
        for events in ((), ("fast", "cart"))
    )
    differs = (without.frames != with_events.frames).any(axis=-1)
    masks = with_events.tracks >= 0
    assert not (without.tracks >= 0).any()
    assert not (differs & ~masks).any()
    assert differs.sum() > 0.95 * masks.sum() > 0  # a colour can be that of the ground
    assert set(np.unique(with_events.tracks)) == {-1, 0, 1}


@pytest.mark.parametrize(("kind", "speed"), [("fast", 4), ("against", -2), ("cart", 2)])
def test_abnormal_things_move_as_they_should(kind: str, speed: int) -> None:
    tracks = mini_videos.render("gravel", 60, (kind,), np.random.default_rng(0)).tracks
    places = {
        frame: np.nonzero(mask.any(axis=0))[0]
        for frame, mask in enumerate(tracks >= 0)
        if mask.any()
    }
    inside = {f: c for f, c in places.items() if c[0] > 0 and c[-1] < W - 1}
    assert len(inside) > 10
    lefts = [int(columns[0]) for columns in inside.values()]
    assert np.diff(lefts).tolist() == [speed] * (len(lefts) - 1)
    entry = places[min(places)]
    assert entry[-1] == W - 1 if speed < 0 else entry[0] == 0
    assert len(entry) == abs(speed)


class Case(NamedTuple):
    """One of the data sets of videos, read at a size that is neither its height nor its width."""

    name: str
    test: Sequence[data.Video]
    train: Tensor  # all clips of 3 frames
    drawn_train: list[mini_videos.Rendered]
    drawn_test: list[mini_videos.Rendered]


@pytest.fixture(params=["avenue", "shanghaitech"])
def case(request: pytest.FixtureRequest, written: Written) -> Case:
    name = request.param
    read = load_videos(name, written.root / name, 64, context=2)
    train = torch.stack(list(read.train))  # type: ignore[call-overload]
    drawn: list[mini_videos.Rendered] = getattr(written, name)
    normal = 2 if name == "avenue" else 1
    if name == "avenue":
        return Case(name, read.test, train, drawn[:normal], drawn[normal:])
    return Case(name, read.test, train, drawn[::3], drawn[1:3] + drawn[4:])  # scene by scene


def expected_frames(video: mini_videos.Rendered) -> NDArray[np.float32]:
    small = [cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in video.frames]
    signed: NDArray[np.float32] = np.stack(small).transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    return signed


def nearest(read: NDArray[np.float32], drawn: NDArray[np.float32]) -> list[int]:
    """Of each frame that was read, the one that was drawn and looks most like it."""
    return [int(np.abs(drawn - frame).mean(axis=(1, 2, 3)).argmin()) for frame in read]


def test_training_clips_are_what_was_drawn(case: Case) -> None:
    count = len(case.drawn_train[0].frames)
    clips = case.train.reshape(len(case.drawn_train), count - 2, 3, 3, 64, 64).numpy()
    for read, video in zip(clips, case.drawn_train, strict=True):
        drawn = expected_frames(video)
        for offset in range(3):
            part = read[:, offset]
            assert nearest(part, drawn) == list(range(offset, offset + count - 2))
            assert np.abs(part - drawn[offset : offset + count - 2]).mean() < 0.06
        assert not (video.tracks >= 0).any()


def test_test_videos_are_what_was_drawn(case: Case) -> None:
    assert len(case.test) == len(case.drawn_test)
    for video, drawn in zip(case.test, case.drawn_test, strict=True):
        assert len(video) == len(drawn.frames) == len(video.labels)
        read = video.clip(0, len(video))
        assert read.dtype == torch.float32 and read.shape == (len(video), 3, 64, 64)
        assert nearest(read.numpy(), expected_frames(drawn)) == list(range(len(video)))
        assert torch.equal(video.clip(7, 4), read[7:11])
        assert np.array_equal(video.labels, (drawn.tracks >= 0).any(axis=(1, 2)))


def test_names_of_videos(case: Case) -> None:
    names = {
        "avenue": ["01", "02", "03", "04"],
        "shanghaitech": ["01_0014", "01_0015", "02_0016", "02_0017"],
    }
    assert [video.name for video in case.test] == names[case.name]


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Of the True pixels, scaled to 64 × 64."""
    (rows, columns), y, x = np.nonzero(mask), 64 / H, 64 / W
    return rows.min() * y, columns.min() * x, (rows.max() + 1) * y, (columns.max() + 1) * x


def test_regions_are_what_was_drawn(case: Case) -> None:
    source = {"avenue": "connected components", "shanghaitech": "annotations"}[case.name]
    some = False
    for video, drawn in zip(case.test, case.drawn_test, strict=True):
        assert video.regions_from == source
        assert len(set(video.regions)) == len(video.regions)
        for frame, tracks in enumerate(drawn.tracks):
            found = [region for region in video.regions if region.frame == frame]
            if source == "annotations":
                expected = {
                    Region(int(track), frame, box_of(tracks == track))
                    for track in np.unique(tracks[tracks >= 0])
                }
                assert set(found) == expected
            elif found:
                boxes = np.array([region.box for region in found])
                around = (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0))
                assert around == pytest.approx(box_of(tracks >= 0))
            assert bool(found) == bool((tracks >= 0).any())
            some = some or bool(found)
    assert some


def test_a_normal_video_has_no_regions(written: Written) -> None:
    video = load_videos("shanghaitech", written.root / "shanghaitech", 64).test[-1]
    assert not video.labels.any() and video.regions == []


def test_components_where_there_are_no_tracks(root: Path) -> None:
    """Of ShanghaiTech; people who come in are a head and a body at first, then one region."""
    before = load_videos("shanghaitech", root / "shanghaitech", 64).test[0]
    regions = before.regions
    shutil.rmtree(root / "shanghaitech" / "ground_truth")
    after = load_videos("shanghaitech", root / "shanghaitech", 64).test[0]
    assert after.regions_from == "connected components"
    whole = {region.frame: region.box for region in regions}
    single = [r for r in after.regions if sum(o.frame == r.frame for o in after.regions) == 1]
    assert len(single) > 10
    assert all(region.box == pytest.approx(whole[region.frame]) for region in single)
    assert len({region.track for region in single}) == 1


def test_tracks_of_avenue(root: Path) -> None:
    folder = root / "avenue" / "ground_truth"
    folder.mkdir()
    for number in range(1, 5):  # frame 40 is one that may be counted, but has no mask
        (folder / f"{number:02}.txt").write_text(
            "5,3,0,0,127,71\n\n0,40,0,0,1,1\n" if number == 2 else ""
        )
    videos = load_videos("avenue", root / "avenue", 64).test
    assert {video.regions_from for video in videos} == {"annotations"}
    assert [video.regions for video in videos] == [[], [Region(5, 3, (0, 0, 64, 64))], [], []]
    assert all(video.labels.any() for video in videos)


def test_the_folder_of_avenue_s_archive(root: Path) -> None:
    folder = root / "avenue"
    before = load_videos("avenue", folder, 32)
    expected = before.train[5], before.test[1].clip(3, 2)
    (folder / "Avenue Dataset").mkdir()
    for name in ("training_videos", "testing_videos"):
        (folder / name).rename(folder / "Avenue Dataset" / name)
    read = load_videos("avenue", folder, 32)
    assert torch.equal(read.train[5], expected[0])
    assert torch.equal(read.test[1].clip(3, 2), expected[1])


def test_converted_videos_of_shanghaitech(root: Path) -> None:
    training = root / "shanghaitech" / "training"
    expected = load_videos("shanghaitech", root / "shanghaitech", 32).train[5]
    (training / "videos").rename(training / "converted_videos")
    read = load_videos("shanghaitech", root / "shanghaitech", 32)
    assert torch.equal(read.train[5], expected)


@pytest.mark.parametrize("masks", [39, 41])
def test_a_frame_more_or_less_is_left_out(masks: int, root: Path) -> None:
    path = root / "avenue" / "ground_truth_demo" / "testing_label_mask" / "2_label.mat"
    write_masks(path, masks)
    video = load_videos("avenue", root / "avenue", 32).test[1]
    assert len(video) == len(video.labels) == min(masks, 40)
    assert {region.frame for region in video.regions} == set(range(len(video)))
