"""Compare a study's settings with the published procedure (docs/explanation/fidelity.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from chexseg.config.published_rules import PUBLISHED, rule
from chexseg.config.settings import Settings
from chexseg.plan.cells import irrelevant_settings

_CLASSIFIER: dict[str, tuple[Any, ...]] = {
    "init": ("imagenet",),
    "geometry": ("crop",),
    "normalisation": ("imagenet",),
    "uncertainty": ("ignore",),
    "checkpoints_per_epoch": (10,),
    "auroc_over": ("studies",),
    "epochs": (3,),
    "batch_size": (16,),
    "learning_rate": (1e-4,),
    "prior_bias": (False,),
}
#: Setting -> its published values: of the code first, then of the paper or README if they differ.
VALUES: dict[str, tuple[Any, ...]] = {
    "size": (320,),
    "ingest.image_resize": ("bilinear",),
    "ingest.mask_resize": ("bilinear",),
    "encoder.architecture": ("resnet18",),
    "labels.mixing": (PUBLISHED,),
    "labels.prefer_positives": (False,),
    "labels.negatives_empty": (False,),
    "labels.expert_split.train": (147,),
    "labels.expert_split.select": (40,),
    "labels.expert_split.by": ("image",),
    "classify.architecture": ("densenet121",),
    **{f"classify.{name}": values for name, values in _CLASSIFIER.items()},
    **{f"pretrain.{name}": values for name, values in _CLASSIFIER.items()},
    "moco.init": ("imagenet",),
    "saliency.layer": ("before-relu",),
    "saliency.target": ("probability",),
    "saliency.threshold": ("otsu",),
    "saliency.fill_holes": (True,),
    "irnet.boundaries": (True,),
    "irnet.architecture": ("resnet50",),
    "irnet.init": ("imagenet",),
    "irnet.freeze_backbone": (True,),
    "irnet.seed_classes": ("all",),
    "irnet.crf": (True,),
    "irnet.foreground": (0.3, 0.25),
    "irnet.background": (0.05, 0.1),
    "irnet.batch_size": (16,),
    "irnet.learning_rate": (1e-4, 0.01, 0.1),
    "irnet.momentum": (1e-4,),
    "irnet.weight_decay": (1e-4,),
    "irnet.schedule": ("constant",),
    "irnet.losses": (PUBLISHED,),
    "irnet.smallest_scale": (0.5,),
    "irnet.largest_scale": (1.5,),
    "irnet.instances": (False,),
    "irnet.lengths": ("absolute",),
    "irnet.normalise": ("image",),
    "irnet.threshold": (0.6,),
    "fit.epochs": (20,),
    "fit.batch_size": (8,),
    "fit.learning_rate": (1e-4, 1e-3, None),
    "fit.schedule": ("constant",),
    "fit.loss": ("class-average-dice",),
    "fit.clip_norm": (None,),
    "fit.flips": (False,),
    "fit.checkpoint": (PUBLISHED,),
    "fit.thresholds": (PUBLISHED,),
    "fit.samples_per_epoch": (None,),
    "distil.temperature": (10,),
    "distil.epochs": (100,),
    "distil.learning_rate": (1e-4, 1e-3, None),
    "distil.thresholds": (PUBLISHED,),
    "score.resolution": ("training",),
}
_GET = {name: attrgetter(name) for name in VALUES}


@dataclass(frozen=True)
class Deviation:
    """A setting with unpublished values; `published` and `used` are lists of values, as text."""

    setting: str
    published: str
    used: str


def deviations(cells: Iterable[Settings]) -> tuple[Deviation, ...]:
    """Return the settings in which cells deviate from the published procedure.

    cells: canonical settings. Encoders, p, numbers of weak images and shares of students' images
    are what the paper varies, so they deviate from nothing.
    """
    used: dict[str, dict[str, Any]] = {name: {} for name in VALUES}
    for settings in cells:
        irrelevant = irrelevant_settings(settings)
        for name, get in _GET.items():
            if name.startswith(irrelevant):
                continue
            value = get(settings)
            section, _, field = name.rpartition(".")
            if section == "distil" and value is None:
                value = getattr(settings.fit, field)
            if value not in _published(name, settings):
                used[name][repr(value)] = value
    return tuple(
        Deviation(name, _text(VALUES[name]), _text(values.values()))
        for name, values in used.items()
        if values
    )


def _text(values: Iterable[Any]) -> str:
    """Return values as in a study file; null, the paper's rate, only if it is alone."""
    several = list(values)
    shown = [value for value in several if value is not None] or several
    return ", ".join(json.dumps(value).strip('"') for value in shown)


def _published(name: str, settings: Settings) -> tuple[Any, ...]:
    """Return the published values of a setting for a cell, with the rules of its supervision."""
    if name == "labels.mixing" and settings.labels.p in (0, 1):
        return (settings.labels.mixing,)  # nothing is mixed
    section, _, field = name.rpartition(".")
    if section in ("fit", "distil") and VALUES[name] == (PUBLISHED,):
        return (rule(field, PUBLISHED, section == "fit" and settings.labels.p == 0),)
    return VALUES[name]
