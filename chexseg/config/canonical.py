"""Reset the settings that don't affect a cell, so that equal cells are found to be equal."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import BaseModel

from chexseg.config.published_rules import cell_rules, changed
from chexseg.config.settings import (
    TRAINED_ENCODERS,
    Encoder,
    Fit,
    Irnet,
    Labels,
    Saliency,
    Settings,
)
from chexseg.data.sampling.mixing import effective_probability
from chexseg.stages.configuration.irnet import OF_BOUNDARIES, REFERENCE_SIDE, freezes_by_default

#: Settings of `fit` without effect on a network that isn't trained.
IDLE_UNTRAINED = (
    "batch_size", "learning_rate", "schedule", "loss", "clip_norm", "flips", "precision", "compile",
    "samples_per_epoch", "epoch_size",
)  # fmt: skip


def canonical(settings: Settings) -> Settings:
    """Return the settings with irrelevant ones set to their defaults.

    Two combinations are the same cell if their canonical settings are equal.
    """
    labels, encoder = settings.labels, settings.encoder
    # A student learns from a fully supervised teacher.
    student = settings.distil.fraction > 0
    probability = 1.0 if student else effective_probability(labels.p, labels.mixing)
    fit, distil = cell_rules(settings.fit, settings.distil, probability, student)
    # Uneven images of an epoch that is longer than the weak set.
    uneven = (
        probability == 0 and labels.mixing == "published" and fit.epoch_size == "expert-and-weak"
    )
    if probability > 0 or (fit.samples_per_epoch is not None and not uneven):
        fit = changed(fit, epoch_size=_default(Fit, "epoch_size"))
    if not fit.epochs:
        fit = changed(fit, **{name: _default(Fit, name) for name in IDLE_UNTRAINED})
    if probability in (0, 1):
        idle = ["mixing"] * (not uneven)
        idle += ["weak", "weak_images", "prefer_positives", "negatives_empty"] * int(probability)
        labels = labels.model_copy(
            update={"p": probability} | {name: _default(Labels, name) for name in idle}
        )
    # random and imagenet have one source each.
    if encoder.imported and encoder.init not in TRAINED_ENCODERS:
        encoder = encoder.model_copy(update={"imported": _default(Encoder, "imported")})
    map_defaults = {name: _default(Saliency, name) for name in idle_map_settings(settings)}
    return changed(
        settings,
        labels=labels,
        encoder=encoder,
        saliency=changed(settings.saliency, **map_defaults),
        classify=_without_idle_steps(settings.classify),
        pretrain=_without_idle_steps(settings.pretrain),
        irnet=canonical_irnet(settings.irnet, settings.size),
        fit=fit,
        distil=distil,
    )


def _without_idle_steps(section: Any) -> Any:
    """Return a classifier's section; `checkpoint_every` is reset if checkpoints go by epochs."""
    default = _default(type(section), "checkpoint_every")
    if section.checkpoints_per_epoch is None or section.checkpoint_every == default:
        return section
    return section.model_copy(update={"checkpoint_every": default})


def idle_map_settings(settings: Settings) -> tuple[str, ...]:
    """Return the settings of `saliency` that don't affect the CAMs and masks of a cell.

    A target only scales the maps, which matters to what is measured on unscaled ones. Grad-CAM++
    has its layer and target.
    """
    saliency, plus = settings.saliency, settings.labels.weak == "cam++"
    scaled = saliency.threshold != "otsu" and saliency.cutoff == 0
    return (*["layer"] * plus, *["target"] * (plus or scaled))


@functools.cache
def canonical_irnet(irnet: Irnet, size: int) -> Irnet:
    """Return IRNet's settings with irrelevant ones set to their defaults."""
    update: dict[str, Any] = {}
    if not irnet.boundaries:
        update = {name: _default(Irnet, name) for name in OF_BOUNDARIES}
    init = update.get("init", irnet.init)
    if update.get("freeze_backbone", irnet.freeze_backbone) == "auto":
        update["freeze_backbone"] = freezes_by_default(init)
    if size == 4 * REFERENCE_SIDE:
        update["lengths"] = _default(Irnet, "lengths")
    return irnet.model_copy(update=update)


def _default(section: type[BaseModel], name: str) -> Any:
    return section.model_fields[name].default
