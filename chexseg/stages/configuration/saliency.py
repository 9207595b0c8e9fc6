"""The config of the stage saliency."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from chexseg.stages.configuration.base import StageConfig


def _validate_map_threshold(value: Any) -> Any:
    """Return a valid threshold. One error here replaces pydantic's one per union member."""
    if value in ("training", "otsu", "otsu-scaled"):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError("expected training, otsu, otsu-scaled, or a number from 0 to below 1")
    return float(value)


class SaliencyConfig(StageConfig):
    """Computation of CAMs and of the thresholds that turn them into weak masks."""

    ADDED = {
        "layer": "after-relu",
        "target": "logit",
        "threshold": "training",
        "cutoff": 0.0,
        "fill_holes": False,
        "expert_split_by": "patient",
    }
    #: Fields that decide masks, not scores; IRNet reads only scores.
    OF_MASKS: ClassVar[tuple[str, ...]] = ("target", "threshold", "cutoff", "fill_holes")

    #: "cam": Grad-CAM, as in the paper. "cam++": Grad-CAM++ (Chattopadhyay et al. 2018).
    kind: Literal["cam", "cam++"] = "cam"
    #: Last feature map, after its ReLU (equations 1 and 2) or before it (`features.norm5`, only of
    #: densenet121). Grad-CAM++: always after it. Published: before-relu. Paper: after-relu.
    layer: Literal["after-relu", "before-relu"] = "after-relu"
    #: What Grad-CAM differentiates: the logit, or the probability p, which multiplies a map by
    #: p (1 - p) and so matters only to `threshold: otsu` and `cutoff`, which read unscaled maps.
    #: Grad-CAM++: always exp(logit). Published: probability. Paper: logit.
    target: Literal["logit", "probability"] = "logit"
    #: Threshold of weak masks. training: of 0, 0.05 .. 0.95 of a map's maximum, for each pathology
    #: the best on the expert training images, before holes are filled. A number: this share of it.
    #: otsu: of each map at the image's size, unscaled, times 255, as uint8. otsu-scaled: the same
    #: of the map scaled by its maximum. Published: otsu. Paper: training (appendix A.1).
    threshold: Annotated[str | float, BeforeValidator(_validate_map_threshold)] = "training"
    #: Empty a mask if its unscaled map's maximum is below this. Published: an option, 0 by default.
    cutoff: float = Field(default=0.0, ge=0)
    #: Add to a mask all that its outer contours enclose. Published: true. Paper: not stated.
    fill_holes: bool = False
    #: Architecture of the input classifier. Paper: densenet121.
    architecture: str = "densenet121"
    #: Number of training images to map, as a seeded sample; null for all.
    images: int | None = Field(default=None, ge=1)
    #: Map frontal views only.
    frontal_only: bool = True
    #: Expert images to choose thresholds on, and to hold back: the same split as in `FitConfig`.
    #: Paper: 147 and 40.
    expert_train: int = Field(default=147, ge=0)
    expert_select: int = Field(default=40, ge=0)
    expert_split_by: Literal["patient", "image"] = "patient"
    #: Empty a mask where the image-level label is negative or blank. Published: false.
    negatives_empty: bool = True
    seed: int = 0
