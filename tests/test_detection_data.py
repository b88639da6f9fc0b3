"""Data sets of anomaly detection: miniatures written, read again, and broken in every way."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

for _name in ("cv2", "scipy", "skimage"):
    pytest.importorskip(_name)

import cv2  # noqa: E402
import scipy.io  # noqa: E402
import skimage.io  # noqa: E402

from benchmarks.detection import data  # noqa: E402
from benchmarks.detection.data import (  # noqa: E402
    DataError,
    Region,
    frames,
    load_images,
    load_videos,
    make_mini,
    mini_images,
    mini_videos,
)
from benchmarks.detection.data.layout import Layout  # noqa: E402
from sspcab_cuda.demo import data as demo  # noqa: E402

SEED = 3
write_mvtec = partial(mini_images.write_mvtec, train=3, good=2, defective=2)
write_avenue = partial(mini_videos.write_avenue, train=2, test=4, frames=40)
write_shanghaitech = partial(mini_videos.write_shanghaitech, train=1, test=2, frames=24)
LAYOUT = Layout("a data set", "https://example.org")
H, W = mini_videos.HEIGHT, mini_videos.WIDTH


class Written(NamedTuple):
    """A folder of data sets, and the videos as they were drawn, by their file's order."""

    root: Path
    avenue: list[mini_videos.Rendered]
    shanghaitech: list[mini_videos.Rendered]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp("data")
    drawn: list[mini_videos.Rendered] = []
    render = mini_videos.render

    def recorded(*args: object) -> mini_videos.Rendered:
        drawn.append(render(*args))  # type: ignore[arg-type]
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini_videos, "render", recorded)
        write_mvtec(root / "mvtec", SEED)
        write_avenue(root / "avenue", SEED)
        count = len(drawn)
        write_shanghaitech(root / "shanghaitech", SEED)
    return Written(root, drawn[:count], drawn[count:])


@pytest.fixture
def root(written: Written, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(written.root, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_kept", frames._Kept(0))


# Images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", mini_images.TEXTURES)
def test_images_are_those_of_the_files(category: str, written: Written) -> None:
    folder = written.root / "mvtec" / category
    size = mini_images.SIDE
    read = load_images("mvtec", folder.parent, category, size)
    assert len(read.train) == 3 and len(read.test) == 2 + 3 * 2  # type: ignore[arg-type]
    for index in range(3):
        file = skimage.io.imread(folder / "train" / "good" / f"{index:03}.png")
        assert torch.equal(read.train[index], torch.from_numpy(file).expand(3, -1, -1) / 255)
    samples = [read.test[index] for index in range(8)]
    kinds = [str(Path(sample.path).parent.name) for sample in samples]
    assert kinds == ["good"] * 2 + [kind for kind in demo.KINDS for _ in range(2)]
    assert [sample.label for sample in samples] == [False] * 2 + [True] * 6
    for sample in samples:
        path = Path(sample.path)
        file = skimage.io.imread(path)
        assert sample.image.dtype == torch.float32 and sample.image.shape == (3, size, size)
        assert torch.equal(sample.image, torch.from_numpy(file).expand(3, -1, -1) / 255)
        assert sample.mask.dtype == torch.bool and bool(sample.mask.any()) == sample.label
        if sample.label:
            masks = folder / "ground_truth" / path.parent.name
            mask = skimage.io.imread(masks / f"{path.stem}_mask.png")
            assert set(np.unique(mask)) == {0, 255}
            assert np.array_equal(sample.mask.numpy(), mask == 255)


@pytest.mark.parametrize(("category", "texture"), mini_images.TEXTURES.items())
def test_masks_are_what_was_drawn(category: str, texture: str, written: Written) -> None:
    """Where the mask is False, a test image is a piece of the photograph, and only there."""
    side = mini_images.SIDE
    photograph = np.rint(255 * demo.split(demo.photograph(texture))[1]).astype(np.uint8)
    pieces = np.lib.stride_tricks.sliding_window_view(photograph, (side, side))
    read = load_images("mvtec", written.root / "mvtec", category, side)
    for index in range(8):
        image, mask, label, _ = read.test[index]
        grey, changed = (255 * image[0]).round().byte().numpy(), mask.numpy()
        rows, columns = np.nonzero(~changed)
        some = slice(None, None, 97)
        fits = (pieces[:, :, rows[some], columns[some]] == grey[rows[some], columns[some]]).all(-1)
        ((top, left),) = np.argwhere(fits)
        assert np.array_equal(grey != pieces[top, left], changed)
        assert 0 < changed.sum() < 0.1 * side**2 if label else not changed.any()


def test_training_images_are_no_test_images(written: Written) -> None:
    """No piece of 16 × 16 pixels is in both."""
    read = load_images("mvtec", written.root / "mvtec", "tile", mini_images.SIDE)
    pieces = [
        {
            window.tobytes()
            for image in images
            for window in np.lib.stride_tricks.sliding_window_view(image[0].numpy(), (16, 16))
            .reshape(-1, 16, 16)
            .copy()
        }
        for images in ([read.train[i] for i in range(3)], [read.test[i].image for i in range(2)])
    ]
    assert pieces[0] and not pieces[0] & pieces[1]


def test_red_is_first_and_grey_has_three_channels(root: Path) -> None:
    path = root / "mvtec" / "tile" / "train" / "good" / "000.png"
    colours = np.zeros((60, 60, 3), np.uint8)
    colours[:, :30] = 255, 51, 0
    skimage.io.imsave(path, colours, check_contrast=False)
    image = load_images("mvtec", root / "mvtec", "tile", 20).train[0]
    assert image[:, 0, 0].tolist() == pytest.approx([1, 0.2, 0])
    assert image[:, 0, 19].tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [16, 32, 64, 256])
def test_masks_lie_where_images_lie_at_every_size(size: int, root: Path) -> None:
    folder = root / "mvtec" / "grid"
    square = np.zeros((128, 128), np.uint8)
    square[16:48, 64:120] = 255
    cv2.imwrite(str(folder / "test" / "patch" / "000.png"), square)
    cv2.imwrite(str(folder / "ground_truth" / "patch" / "000_mask.png"), square)
    sample = load_images("mvtec", root / "mvtec", "grid", size).test[2]
    expected = torch.zeros(size, size, dtype=torch.bool)
    expected[size // 8 : 3 * size // 8, size // 2 : 15 * size // 16] = True
    assert torch.equal(sample.mask, expected)
    assert torch.equal(sample.image[0] > 0.5, expected)


def test_a_smaller_mask_has_the_nearest_pixels(root: Path) -> None:
    mask = np.random.default_rng(0).random((128, 128)) < 0.5
    path = root / "mvtec" / "grid" / "ground_truth" / "patch" / "000_mask.png"
    cv2.imwrite(str(path), 255 * mask.astype(np.uint8))
    sample = load_images("mvtec", root / "mvtec", "grid", 32).test[2]
    assert np.array_equal(sample.mask.numpy(), mask[2::4, 2::4])


# Videos ---------------------------------------------------------------------------------------


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


def write_masks(path: Path, count: int, name: str = "volLabel") -> None:
    cells = np.empty((1, count), object)
    cells[0] = [np.eye(H, W, dtype=np.uint8)] * count
    scipy.io.savemat(path, {name: cells})


# Data sets that are incomplete ----------------------------------------------------------------

Break = Callable[[Path], None]


def remove(path: str) -> Break:
    def act(root: Path) -> None:
        if (root / path).is_dir():
            shutil.rmtree(root / path)
        else:
            (root / path).unlink()

    return act


def put(path: str, content: bytes = b"") -> Break:
    def act(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)

    return act


def save(path: str, array: NDArray[np.generic]) -> Break:
    return lambda root: np.save(root / path, array)


def cut(path: str) -> Break:
    """The second half of a file is lost."""

    def act(root: Path) -> None:
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[: len(content) // 2])

    return act


def remove_files(path: str) -> Break:
    def act(root: Path) -> None:
        for file in (root / path).iterdir():
            file.unlink()

    return act


def copy_training_videos(root: Path) -> None:
    """As many as are published; test videos are missing then."""
    for number in range(3, 17):
        shutil.copy(root / "training_videos/01.avi", root / f"training_videos/{number:02}.avi")
    (root / "MINIATURE").unlink()


MASKS = "ground_truth_demo/testing_label_mask"
BROKEN_IMAGES: list[tuple[Break, str]] = [
    (remove("grid"), "there must be a folder ROOT/grid"),
    (remove("grid/train"), "there must be a folder ROOT/grid/train/good"),
    (remove("grid/test/good"), "there must be a folder ROOT/grid/test/good"),
    (
        remove_files("grid/train/good"),
        "there must be files ROOT/grid/train/good/[0-9]*.png",
    ),
    (put("grid/train/good/001.png"), "the file ROOT/grid/train/good/001.png must not be empty"),
    (
        remove("MINIATURE"),
        "ROOT must have (264, 21, 57) images of grid for training, normal ones and ones with "
        "defects for tests; got (3, 2, 6)",
    ),
    (remove("grid/test/patch"), "there must be a file ROOT/grid/test/patch/000.png"),
    (remove("grid/test/stain/001.png"), "there must be a file ROOT/grid/test/stain/001.png"),
    (remove("grid/ground_truth"), "there must be a folder ROOT/grid/ground_truth/patch"),
    (
        remove("grid/ground_truth/scratch/001_mask.png"),
        "there must be a file ROOT/grid/ground_truth/scratch/001_mask.png",
    ),
]
BROKEN_AVENUE: list[tuple[Break, str]] = [
    (remove("training_videos"), "there must be a folder ROOT/training_videos"),
    (remove("testing_videos"), "there must be a folder ROOT/testing_videos"),
    (remove("ground_truth_demo"), f"there must be a folder ROOT/{MASKS}"),
    (remove("training_videos/01.avi"), "there must be a file ROOT/training_videos/01.avi"),
    (remove("testing_videos/02.avi"), "there must be a file ROOT/testing_videos/02.avi"),
    (remove("testing_videos/04.avi"), "there must be a file ROOT/testing_videos/04.avi"),
    (remove(f"{MASKS}/2_label.mat"), f"there must be a file ROOT/{MASKS}/2_label.mat"),
    (remove(f"{MASKS}/4_label.mat"), f"there must be a file ROOT/{MASKS}/4_label.mat"),
    (put("testing_videos/01.avi"), "the file ROOT/testing_videos/01.avi must not be empty"),
    (
        put("training_videos/02.avi", b"no video"),
        "there must be a video that can be decoded in ROOT/training_videos/02.avi",
    ),
    (put(f"{MASKS}/1_label.mat", b"x" * 200), f"ROOT/{MASKS}/1_label.mat must be a MATLAB file"),
    (
        lambda root: write_masks(root / MASKS / "1_label.mat", 40, "vol"),
        f"ROOT/{MASKS}/1_label.mat must hold volLabel; got vol",
    ),
    (
        lambda root: write_masks(root / MASKS / "3_label.mat", 38),
        f"ROOT/{MASKS}/3_label.mat must have a mask for each frame of ROOT/testing_videos/03.avi; "
        "got 38 and 40",
    ),
    (
        cut("testing_videos/03.avi"),
        "ROOT/testing_videos/03.avi must have the 40 frames of its header; got ",
    ),
    (remove("MINIATURE"), "there must be a file ROOT/training_videos/03.avi"),
    (copy_training_videos, "there must be a file ROOT/testing_videos/05.avi"),
    (put("ground_truth/01.txt"), "there must be a file ROOT/ground_truth/02.txt"),
]
ONE = "testing/frames/01_0014"
BROKEN_SHANGHAITECH: list[tuple[Break, str]] = [
    (remove("training"), "there must be a folder ROOT/training/videos"),
    (
        remove_files("training/videos"),
        "there must be files ROOT/training/videos/[0-9]*.avi",
    ),
    (remove("testing/test_frame_mask"), "there must be a folder ROOT/testing/test_frame_mask"),
    (remove("testing/frames"), f"there must be a folder ROOT/{ONE}"),
    (remove(ONE), f"there must be a folder ROOT/{ONE}"),
    (remove(f"{ONE}/000.jpg"), f"there must be a file ROOT/{ONE}/000.jpg"),
    (remove(f"{ONE}/012.jpg"), f"there must be a file ROOT/{ONE}/012.jpg"),
    (
        remove(f"{ONE}/023.jpg"),
        f"01_0014 must have a label and a mask for each frame in ROOT/{ONE}; "
        "got 24, 24 and 23 frames",
    ),
    (put(f"{ONE}/011.jpg"), f"the file ROOT/{ONE}/011.jpg must not be empty"),
    (
        remove("testing/test_frame_mask/02_0016.npy"),
        "there must be a file ROOT/testing/test_frame_mask/02_0016.npy",
    ),
    (
        remove("testing/test_pixel_mask/02_0016.npy"),
        "there must be a file ROOT/testing/test_pixel_mask/02_0016.npy",
    ),
    (
        put("testing/test_pixel_mask/02_0016.npy", b"no array"),
        "ROOT/testing/test_pixel_mask/02_0016.npy must be a NumPy array; got: ",
    ),
    (
        cut("testing/test_pixel_mask/02_0016.npy"),
        "ROOT/testing/test_pixel_mask/02_0016.npy must be a NumPy array; got: ",
    ),
    (
        save("testing/test_frame_mask/01_0014.npy", np.zeros((24, 1))),
        "ROOT/testing/test_frame_mask/01_0014.npy must have 1 dimensions; got the shape (24, 1)",
    ),
    (
        save("testing/test_frame_mask/01_0014.npy", np.zeros(23)),
        f"must have a label and a mask for each frame in ROOT/{ONE}; got 23, 24 and 24 frames",
    ),
    (
        save("testing/test_pixel_mask/01_0014.npy", np.zeros((25, H, W), bool)),
        f"must have a label and a mask for each frame in ROOT/{ONE}; got 24, 25 and 24 frames",
    ),
    (
        remove("MINIATURE"),
        "ROOT must have (330, 107) videos for training and tests; got (2, 4)",
    ),
    (remove("ground_truth/02_0017.txt"), "there must be a file ROOT/ground_truth/02_0017.txt"),
]


def complains(root: Path, text: str) -> AbstractContextManager[pytest.ExceptionInfo[DataError]]:
    return pytest.raises(DataError, match=re.escape(text.replace("ROOT", str(root))))


@pytest.mark.parametrize(("act", "text"), BROKEN_IMAGES, ids=[text for _, text in BROKEN_IMAGES])
def test_incomplete_images(act: Break, text: str, root: Path) -> None:
    act(root / "mvtec")
    with complains(root / "mvtec", text) as caught:
        load_images("mvtec", root / "mvtec", "grid", 32)
    assert str(caught.value).startswith("MVTec AD: ")
    assert str(caught.value).endswith("https://www.mvtec.com/company/research/datasets/mvtec-ad")


@pytest.mark.parametrize(
    ("name", "act", "text"),
    [("avenue", *broken) for broken in BROKEN_AVENUE]
    + [("shanghaitech", *broken) for broken in BROKEN_SHANGHAITECH],
    ids=[text for _, text in BROKEN_AVENUE + BROKEN_SHANGHAITECH],
)
def test_incomplete_videos(name: str, act: Break, text: str, root: Path) -> None:
    act(root / name)
    with complains(root / name, text) as caught:
        load_videos(name, root / name, 32)
    pages = {"avenue": "cuhk", "shanghaitech": "svip", "ground_truth": "AED"}
    page = pages["ground_truth" if "ROOT/ground_truth/" in text else name]
    assert "Its publisher offers the data at http" in str(caught.value)
    assert page in str(caught.value)


def test_files_that_are_broken_inside(root: Path) -> None:
    """These show when they are read."""
    cut("training_videos/02.avi")(root / "avenue")
    clips = load_videos("avenue", root / "avenue", 32).train
    text = "ROOT/training_videos/02.avi must have the 40 frames of its header; got "
    with complains(root / "avenue", text):
        clips[len(clips) - 1]  # type: ignore[arg-type]

    put(f"{ONE}/003.jpg", b"no image")(root / "shanghaitech")
    video = load_videos("shanghaitech", root / "shanghaitech", 32).test[0]
    text = f"there must be an image that can be decoded in ROOT/{ONE}/003.jpg"
    with complains(root / "shanghaitech", text):
        video.clip(2, 3)

    cut(f"{MASKS}/1_label.mat")(root / "avenue")
    video = load_videos("avenue", root / "avenue", 32).test[0]
    with complains(root / "avenue", f"ROOT/{MASKS}/1_label.mat must be a MATLAB file; got: "):
        video.labels.any()

    put("grid/test/good/001.png", b"no image")(root / "mvtec")
    test = load_images("mvtec", root / "mvtec", "grid", 32).test
    text = "there must be an image that can be decoded in ROOT/grid/test/good/001.png"
    with complains(root / "mvtec", text):
        test[1]


def test_names_that_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the name must be one of mvtec; got avenue"):
        load_images("avenue", tmp_path, "grid", 32)
    with pytest.raises(DataError, match="the name must be one of avenue, shanghaitech; got mvtec"):
        load_videos("mvtec", tmp_path, 32)
    with pytest.raises(DataError, match=r"must be one of bottle, .*, zipper; got brick"):
        load_images("mvtec", tmp_path, "brick", 32)


# Miniatures -----------------------------------------------------------------------------------


def contents(root: Path) -> dict[str, bytes]:
    """Of every file; a MATLAB file has the date in its first 128 bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes()[128 if path.suffix == ".mat" else 0 :]
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def small_minis(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "mvtec": write_mvtec,
        "avenue": write_avenue,
        "shanghaitech": write_shanghaitech,
    }
    assert small.keys() == data._MINIS.keys()
    monkeypatch.setattr(data, "_MINIS", small)


@pytest.mark.usefixtures("small_minis")
def test_the_same_seed_gives_the_same_files(written: Written, tmp_path: Path) -> None:
    make_mini(tmp_path / "same", SEED)
    make_mini(tmp_path / "other")
    same, other = contents(tmp_path / "same"), contents(tmp_path / "other")
    assert same == contents(written.root)
    assert same.keys() >= {"mvtec/tile/test/good/000.png", "avenue/training_videos/01.avi"}
    pictures = [name for name in same if name.endswith((".png", ".avi", ".jpg"))]
    assert not [name for name in pictures if same[name] == other.get(name)]


@pytest.mark.parametrize("name", ["mvtec", "avenue", "shanghaitech"])
@pytest.mark.usefixtures("small_minis")
def test_a_data_set_is_never_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    message = f"a miniature is written to a new folder; got {tmp_path / name}, which exists"
    with pytest.raises(DataError, match=re.escape(message)):
        make_mini(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [name]


def test_layouts_are_those_that_anomalib_reads(written: Written) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("anomalib", reason="needs pip install anomalib")
        datasets = import_module("anomalib.data.datasets")
        avenue = import_module("anomalib.data.datasets.video.avenue")
        shanghaitech = import_module("anomalib.data.datasets.video.shanghaitech")

    theirs = datasets.MVTecADDataset(written.root / "mvtec", "grid", split="test")
    ours = load_images("mvtec", written.root / "mvtec", "grid", mini_images.SIDE).test
    samples = {sample.path: sample for sample in (ours[index] for index in range(8))}
    assert len(theirs) == len(ours) == 8  # type: ignore[arg-type]
    for index in range(8):
        item = theirs[index]
        sample = samples[item.image_path]
        torch.testing.assert_close(item.image.as_subclass(Tensor), sample.image)
        assert torch.equal(item.gt_mask.as_subclass(Tensor).bool(), sample.mask)
        assert bool(item.gt_label) == sample.label

    folder = written.root / "avenue"
    videos = avenue.make_avenue_dataset(folder, folder / "ground_truth_demo", "test")
    masks = [Path(path) for path in videos.mask_path]
    assert len(masks) == 4 and all(path.is_file() for path in masks)
    for scene in (1, 2):
        tests = shanghaitech.make_shanghaitech_dataset(written.root / "shanghaitech", scene, "test")
        masks = [Path(path) for path in tests.mask_path]
        assert len(masks) == 2 and all(path.is_file() for path in masks)
