"""Scores of a trained host on test data, and the published metrics of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm import tqdm, trange

from . import metrics
from .data.samples import ImageSample, Video
from .hosts import Host, ImageHost, VideoHost, image_scores
from .train import placement

_EXAMPLES = 6  # images, each of another kind


class Series(NamedTuple):
    """Scores beside their truth: of all images, or of the frames of one video."""

    name: str
    scores: NDArray[np.float64]  # (n,), higher = more anomalous
    labels: NDArray[np.bool_]  # (n,)


class Example(NamedTuple):
    """An image with its truth and its anomaly map."""

    kind: str
    image: NDArray[np.float32]  # (S, S, 3), 0..1
    mask: NDArray[np.bool_]  # (S, S)
    anomaly_map: NDArray[np.float32]  # (S, S)


class Evaluation(NamedTuple):
    """Metrics are areas under curves, 0..1, higher is better."""

    metrics: dict[str, float]
    series: list[Series]
    examples: list[Example]
    regions_from: str  # where the true regions of RBDC and TBDC are from; "" without them


def evaluate_images(
    host: ImageHost, test: Dataset[ImageSample], batch: int, *, amp: bool = False, title: str = ""
) -> Evaluation:
    """Scores every test image, ``batch`` at a time; no more of them is in memory."""
    pixels = metrics.PixelMetrics()
    scores, labels = [], []
    examples: dict[str, Example] = {}
    count = len(test)  # type: ignore[arg-type]
    for first in trange(0, count, batch, desc=title, unit="batch"):
        samples = [test[index] for index in range(first, min(first + batch, count))]
        images = torch.stack([sample.image for sample in samples]).to(*placement(host))
        with _inference(host, amp):
            maps = host.anomaly_maps(images).float()
            scores.append(image_scores(maps).cpu().numpy())
        score_maps = maps.cpu().numpy()
        masks = torch.stack([sample.mask for sample in samples]).numpy()
        pixels.update(score_maps, masks)
        labels += [bool(sample.label) for sample in samples]
        for sample, mask, score_map in zip(samples, masks, score_maps, strict=True):
            kind = Path(sample.path).parent.name
            if len(examples) < _EXAMPLES and kind not in examples:
                image = sample.image.permute(1, 2, 0).numpy()
                examples[kind] = Example(kind, image, mask, score_map)
    series = Series("test images", np.concatenate(scores), np.array(labels))
    of_pixels = pixels.compute()
    return Evaluation(
        {
            "image AUROC": metrics.roc_auc(series.scores, series.labels),
            "image AP": metrics.average_precision(series.scores, series.labels),
            "pixel AUROC": of_pixels["auroc"],
            "pixel AP": of_pixels["ap"],
            "AUPRO": of_pixels["aupro"],
        },
        [series],
        list(examples.values()),
        "",
    )


def evaluate_videos(
    host: VideoHost,
    test: Sequence[Video],
    context: int,
    batch: int,
    *,
    amp: bool = False,
    title: str = "",
) -> Evaluation:
    """Scores each frame that has ``context`` frames before it; the first ones are left out."""
    series = []
    for video in tqdm(test, desc=title, unit="video"):
        errors = []
        frames = len(video) - context
        for first in range(0, frames, batch):
            starts = range(first, min(first + batch, frames))
            clips = torch.stack([video.clip(start, context + 1) for start in starts])
            with _inference(host, amp):
                error, _ = host.frame_errors(clips.to(*placement(host)))
            errors.append(error.double().cpu().numpy())
        scores = metrics.normalise(np.concatenate(errors))
        series.append(Series(video.name, scores, video.labels[context:]))
    scores_of_all, labels_of_all = [s.scores for s in series], [s.labels for s in series]
    return Evaluation(
        {
            "micro AUC": metrics.micro_auc(scores_of_all, labels_of_all),
            "macro AUC": metrics.macro_auc(scores_of_all, labels_of_all),
        },
        series,
        [],
        "",
    )


@contextlib.contextmanager
def _inference(host: Host, amp: bool) -> Iterator[None]:
    """Evaluation mode, no graph, autocast as in training."""
    host.eval()
    device, _ = placement(host)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=amp):
        yield
