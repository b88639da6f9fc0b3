"""Scores of a trained host on test data, and the published metrics of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm, trange

from . import metrics
from .data.samples import ImageSample, VideoData
from .hosts import Host, ImageHost, VideoHost, image_scores
from .train import placement

_EXAMPLES = 6  # images, each of another kind
_CLIPS = 64  # of the training data, for the threshold of regions
_QUANTILE = 0.99  # of their pixels lie below it


class Series(NamedTuple):
    """Scores beside their truth: of all images, or of the frames of one video."""

    name: str
    scores: NDArray[np.floating]  # (n,), higher = more anomalous
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
    data: VideoData,
    context: int,
    batch: int,
    *,
    amp: bool = False,
    title: str = "",
) -> Evaluation:
    """Scores each frame that has ``context`` frames before it; the first ones are left out.

    A region is where the map is above the 0.99 quantile of maps of training clips, 64 of them.
    RBDC and TBDC are left out where no true region is known.
    """
    count = len(data.train)  # type: ignore[arg-type]
    chosen = np.unique(np.linspace(0, count - 1, _CLIPS).astype(int)).tolist()
    _, normal_maps = _errors(host, lambda index: data.train[chosen[index]], len(chosen), batch, amp)
    threshold = float(np.quantile(normal_maps, _QUANTILE))

    series, detections, regions = [], [], []
    for video in tqdm(data.test, desc=title, unit="video"):
        errors, maps = _errors(
            host, partial(video.clip, length=context + 1), len(video) - context, batch, amp
        )
        normalised = metrics.normalise(errors).astype(np.float64)
        series.append(Series(video.name, normalised, video.labels[context:]))
        detections.append(metrics.region_detections(maps, threshold))
        regions.append(
            [
                region._replace(frame=region.frame - context)
                for region in video.regions
                if region.frame >= context
            ]
        )
    scores, labels = [video.scores for video in series], [video.labels for video in series]
    found = {
        "micro AUC": metrics.micro_auc(scores, labels),
        "macro AUC": metrics.macro_auc(scores, labels),
    }
    if any(regions):
        frames = [len(video.scores) for video in series]
        found["RBDC"] = metrics.rbdc(detections, regions, frames)
        found["TBDC"] = metrics.tbdc(detections, regions, frames)
    sources = {video.regions_from for video in data.test} if any(regions) else set()
    return Evaluation(found, series, [], " and ".join(sorted(sources)))


def _errors(
    host: VideoHost, clip: Callable[[int], Tensor], count: int, batch: int, amp: bool
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Scores ``(count,)`` and maps ``(count, S, S)`` of the last frames of clips."""
    scores, maps = [], []
    for first in range(0, count, batch):
        clips = torch.stack([clip(index) for index in range(first, min(first + batch, count))])
        with _inference(host, amp):
            some_scores, some_maps = host.frame_errors(clips.to(*placement(host)))
        scores.append(some_scores.double().cpu().numpy())
        maps.append(some_maps.float().cpu().numpy())
    return np.concatenate(scores), np.concatenate(maps)


@contextlib.contextmanager
def _inference(host: Host, amp: bool) -> Iterator[None]:
    """Evaluation mode, no graph, autocast as in training."""
    host.eval()
    device, _ = placement(host)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=amp):
        yield
