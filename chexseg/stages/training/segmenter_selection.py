"""Choice of a segmenter's epoch and of its output thresholds, by the rules of `FitConfig`.

A rule's images are the held-back expert images, the training images after training, or the batches
of an epoch while it trains. The published code's rules are those that `FitConfig` names so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from chexseg.data import radiographs
from chexseg.models import distributed, encoders
from chexseg.pathologies import COMMON
from chexseg.saliency.logit_quantiles import LogitHistogram
from chexseg.saliency.thresholds import GRID, Histogram, TargetHistogram
from chexseg.stages import configs
from chexseg.stages.scoring.mask_counts import MaskCounter
from chexseg.stages.training import segmenter_data

#: One threshold per pathology, and its pooled IoU on the images that chose it, if it has one.
Thresholds = tuple[list[float], list[float | None]]


def all_logits(config: configs.FitConfig, model: nn.Module, images_NHW: Tensor) -> Iterator[Tensor]:
    """Yield batches of logits_NKHW in evaluation mode, in the order of the images."""
    model.eval()
    with torch.inference_mode():
        for part in images_NHW.split(segmenter_data.EVALUATED):
            yield model(encoders.prepare(part, config.init))


def probabilities(
    config: configs.FitConfig, model: nn.Module, images_NHW: Tensor
) -> Iterator[Tensor]:
    """Yield batches of probabilities_NKHW in the order of the images."""
    for logits_NKHW in all_logits(config, model, images_NHW):
        yield logits_NKHW.sigmoid()


def selection_score(
    config: configs.FitConfig, model: nn.Module, select: segmenter_data.MaskedImages
) -> float | None:
    """Return the mean over pathologies of an IoU that is pooled over the held-back images.

    The IoU at threshold 0.5, or by the rules best-threshold and best-threshold-all the best IoU of
    the candidate thresholds. Averages the four common pathologies that are studied and have true
    pixels; without any of these, or by best-threshold-all, all pathologies with true pixels; None
    without any.
    """
    images, _ = select
    if not len(images):
        return None
    if config.checkpoint in ("best-threshold", "best-threshold-all"):
        histogram = _pooled(config, model, segmenter_data.in_batches(select))
        iou_K = histogram.best()[1].cpu()
        occurring = [k for k, iou in enumerate(iou_K.tolist()) if iou == iou]
    else:
        iou_K, occurring = _iou_at_half(config, model, select)
    chosen = [k for k in occurring if config.pathologies[k] in COMMON] or occurring
    if config.checkpoint == "best-threshold-all":
        chosen = occurring
    return float(iou_K[chosen].mean()) if chosen else None


def _iou_at_half(
    config: configs.FitConfig, model: nn.Module, select: segmenter_data.MaskedImages
) -> tuple[Tensor, list[int]]:
    """Return (iou_K at threshold 0.5, numbers of the pathologies with true pixels)."""
    images, masks = select
    counter = MaskCounter((), config.pathologies, images.shape[-1])
    for predicted, packed in zip(
        probabilities(config, model, images), masks.split(segmenter_data.EVALUATED), strict=True
    ):
        counter.count(predicted > 0.5, radiographs.unpack_bits(packed, predicted.shape[1:]))
    counts_K3 = torch.from_numpy(counter.counts_IK3().sum(axis=0)).double()
    intersection_K, predicted_K, true_K = counts_K3.T
    iou_K = intersection_K / (predicted_K + true_K - intersection_K)
    return iou_K, [k for k, true in enumerate(true_K.tolist()) if true > 0]


def choose_thresholds(
    config: configs.FitConfig, model: nn.Module, batches: Iterator[Mapping[str, Tensor]]
) -> Thresholds:
    """Return each pathology's output threshold, and its pooled IoU on these images.

    The IoU is None for a pathology without a true pixel. batches: ``images`` (N, H, W) and packed
    ``masks`` (N, bytes) of all images, at most `EVALUATED` at a time.
    """
    histogram = _pooled(config, model, batches)
    if isinstance(config.thresholds, float):
        assert isinstance(histogram, Histogram)
        thresholds = [config.thresholds] * len(config.pathologies)
        iou = histogram.iou_KT()[:, round(config.thresholds * len(GRID))].tolist()
    else:
        thresholds, iou = (values.tolist() for values in histogram.best())
    if config.thresholds != "logit-quantiles":
        thresholds = np.round(thresholds, 2).tolist()
    return thresholds, [None if value != value else value for value in iou]


def batch_thresholds(config: configs.FitConfig, histogram: TargetHistogram) -> Thresholds:
    """Return each pathology's threshold, and its pooled IoU on the batches of an epoch.

    histogram: of this worker's rows of the batches. A student has no IoU, because its targets are
    its teacher's raw logits.
    """
    summed = TargetHistogram(distributed.all_reduce_sum(histogram.sums_2KB))
    thresholds, iou = (values.tolist() for values in summed.best())
    student = config.supervision == "teacher"
    return (
        np.round(thresholds, 2).tolist(),
        [None if student or value != value else value for value in iou],
    )


def _pooled(
    config: configs.FitConfig, model: nn.Module, batches: Iterator[Mapping[str, Tensor]]
) -> Histogram | LogitHistogram:
    """Return the histogram of the images, over the candidates of the config's thresholds."""
    count = len(config.pathologies)
    if config.thresholds == "logit-quantiles":
        quantiles = LogitHistogram.empty(count)
        for batch in batches:
            (logits,) = all_logits(config, model, batch["images"])
            masks = radiographs.unpack_bits(batch["masks"], logits.shape[1:])
            quantiles = quantiles + LogitHistogram.of(logits, masks)
        return quantiles
    grid = Histogram.empty(count)
    for batch in batches:
        (predicted,) = probabilities(config, model, batch["images"])
        grid = grid + Histogram.of(
            predicted, radiographs.unpack_bits(batch["masks"], predicted.shape[1:])
        )
    return grid
