"""Config of IRNet. "Published" is the code of CheXseg and IRNet's authors, "paper" is CheXseg."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from chexseg.errors import UserError
from chexseg.stages.configuration.base import Precision, StageConfig

#: Sides in pixels of the image and of its map to which lengths refer if they are relative.
REFERENCE_SIZE = 320
REFERENCE_SIDE = 80


def _validate_threshold(value: Any) -> Any:
    """Return a valid threshold. One error here replaces pydantic's one per union member."""
    if value in ("training", "otsu"):
        return value
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise ValueError("expected training, otsu, or a number from 0 to 1")
    return number


def _validate_freezing(value: Any) -> Any:
    """Return true, false or auto. One error here replaces pydantic's one per union member."""
    if value != "auto" and not isinstance(value, bool):
        raise ValueError("expected true, false or auto")
    return value


class IRNetConfig(StageConfig):
    """Training of IRNet and the random walk that refines CAMs."""

    ADDED: ClassVar[Mapping[str, Any]] = {
        "boundaries": True,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "polynomial",
        "precision": "float32",
        "losses": "pooled",
        "smallest_scale": 1.0,
        "largest_scale": 1.0,
        "seed_classes": "present",
        "crf": False,
        "lengths": "absolute",
        "normalise": "map",
    }

    #: Let a trained boundary map stop the random walk. false: train no network; the walk spreads
    #: equally in all directions. It shows what boundaries contribute. Published and paper: true.
    boundaries: bool = True
    #: Backbone, an encoder of segmentation-models-pytorch that can be dilated. Paper: resnet50.
    architecture: str = "resnet50"
    #: Initial weights of the backbone. chexpert, moco: trained by this study's `pretrain` or
    #: `moco`. imagenet: imported by `chexseg encoder import`. Published: imagenet.
    init: Literal["random", "imagenet", "chexpert", "moco"] = "random"
    #: Do not train the backbone. auto: true unless `init` is random; a frozen random backbone would
    #: give useless features. Published: true.
    freeze_backbone: Annotated[bool | str, BeforeValidator(_validate_freezing)] = "auto"
    #: Number of images to train on, as a seeded sample of those with a CAM; null for all.
    images: int | None = Field(default=None, ge=2)
    #: Passes over these images. Published design: 3.
    epochs: int = Field(default=3, ge=1)
    #: Images per step. Paper: 16.
    batch_size: int = Field(default=16, ge=2)
    #: Initial learning rate of SGD; the displacement branch gets ten times this rate. Published:
    #: 1e-4 by default, 0.01 in the README. Paper: 0.1.
    learning_rate: float = Field(default=0.1, gt=0)
    #: Momentum of SGD. Published: 1e-4, because the weight decay is passed in momentum's place.
    #: Paper: not stated.
    momentum: float = Field(default=0.9, ge=0, lt=1)
    #: L2 penalty of SGD. Published: 1e-4 is meant; see `momentum`. Paper: not stated.
    weight_decay: float = Field(default=1e-4, ge=0)
    #: Learning rate over time. polynomial: down to 0 over all steps, with power 0.9. Published:
    #: constant. Paper: not stated.
    schedule: Literal["polynomial", "constant"] = "polynomial"
    #: Precision of the passes; weights, gradients and the losses stay float32. tf32: faster
    #: convolutions on a GPU. bfloat16: for GPUs. Published and paper: not stated.
    precision: Precision = "float32"
    #: Training losses. pooled: means over the pairs of all classes (paper, equations 3 to 7).
    #: published: means for each class, without border pairs, in a sum that counts the first class
    #: most (`models.irnet_losses.published_losses`).
    losses: Literal["pooled", "published"] = "pooled"
    #: Augmentation: a training image is resized by a random factor, at least this one, before a
    #: random crop of its former size; 1 for both limits: none. Published: 0.5. Paper: not stated.
    smallest_scale: float = Field(default=1.0, gt=0, le=10)
    #: Augmentation: largest random factor. Published: 1.5. Paper: not stated.
    largest_scale: float = Field(default=1.0, gt=0, le=10)
    #: Scaled CAM values above this are seeds of the foreground. Published: 0.25 or 0.3. Paper: 0.3.
    foreground: float = Field(default=0.3, ge=0, le=1)
    #: Scaled CAM values below this are seeds of the background; values between the two limits are
    #: ignored. At most `foreground`. Published: 0.1 or 0.05. Paper: 0.05.
    background: float = Field(default=0.05, ge=0, le=1)
    #: Classes with seeds in an image: those with a positive or uncertain label, or all ten.
    #: Published: all.
    seed_classes: Literal["present", "all"] = "present"
    #: Move the borders of both seeds to edges of the image, by a dense CRF for each class
    #: (`saliency.dense_crf`). Small seeds vanish: at 320 pixels, those of less than about 3,000
    #: pixels. Published: true. Paper: not stated.
    crf: bool = False
    #: Unit of `radius`, `walk_radius`, the length of the walk and the CRF's kernels. absolute:
    #: pixels of the stride-4 map; for the CRF, of the image. relative: pixels of a map of 80 x 80
    #: and of its image, 320 x 320; lengths change with the side. Published: absolute, at 320.
    lengths: Literal["absolute", "relative"] = "absolute"
    #: Pairs are nearer than this, in `lengths`. Published design: 10.
    radius: float = Field(default=10, gt=1)
    #: Random walk: a step leads to neighbours nearer than this, in `lengths`. Published: 3.
    walk_radius: float = Field(default=3, gt=1)
    #: Random walk: exponent of the affinity of two pixels. Published: 5.
    walk_power: float = Field(default=5, gt=0)
    #: Random walk: it has 2 to the power of this many steps. With relative lengths the number is
    #: adjusted so that the walk spreads over the same share of the map. Published: 3.
    walk_steps_log2: int = Field(default=3, ge=0, le=10)
    #: Spread and scale each instance of the displacement field separately, so that a weak second
    #: lesion survives next to a strong one (Ahn et al. 2019; the paper's appendix A.2). Default
    #: and the authors' code: one map per class.
    instances: bool = False
    #: Resolution at which scores are divided by their maximum: the stride-4 map, or the image,
    #: after upsampling. Published: image.
    normalise: Literal["map", "image"] = "map"
    #: Scaled scores above this form the weak mask. training: of 0, 0.05 .. 0.95 for each pathology
    #: the best on the expert training images, as for CAMs. otsu: for each map its own, of the
    #: scaled scores at the image's size, times 255, as uint8. Published: 0.6.
    threshold: Annotated[str | float, BeforeValidator(_validate_threshold)] = 0.6
    #: Empty a mask where the image-level label is negative or blank. Published: false.
    negatives_empty: bool = True
    seed: int = 0

    def freezes(self) -> bool:
        """Return whether the backbone is frozen."""
        if isinstance(self.freeze_backbone, bool):
            return self.freeze_backbone
        return freezes_by_default(self.init)

    @property
    def scales(self) -> tuple[float, float]:
        """Return the smallest and the largest factor by which training images are resized."""
        return self.smallest_scale, self.largest_scale

    def pair_radius(self, side: int) -> float:
        """Return the radius of pairs in pixels of a map of this side."""
        if self.lengths == "absolute":
            return self.radius
        return max(self.radius * side / REFERENCE_SIDE, NEXT_PIXEL)

    def crf_scale(self, size: int) -> float:
        """Return the factor of the CRF's lengths for an image of this size."""
        return 1.0 if self.lengths == "absolute" else size / REFERENCE_SIZE

    def reach(self, side: int) -> int:
        """Return the longest vertical or horizontal distance of a pair, in pixels of a map."""
        return math.ceil(self.pair_radius(side)) - 1


def check_pairs(config: IRNetConfig, size: int) -> None:
    """Raise `UserError` if the published losses leave out all pairs of images of this size."""
    side = -(-size // 4)
    if config.boundaries and config.losses == "published" and side <= 2 * config.reach(side):
        raise UserError(
            f"irnet.radius: found {config.radius:g}; with losses: published, the map of {side} x"
            f" {side} of an image of {size} pixels has border pairs only, which are left out;"
            " hint: lengths: relative"
        )


#: Smallest radius that contains a pixel's neighbours by edges.
NEXT_PIXEL = 1.01

#: Settings without effect if no boundaries are learned.
OF_BOUNDARIES = (
    "architecture", "init", "freeze_backbone", "images", "epochs", "batch_size", "learning_rate",
    "momentum", "weight_decay", "schedule", "precision", "losses", "smallest_scale",
    "largest_scale", "foreground", "background", "seed_classes", "crf", "radius", "walk_power",
    "instances",
)  # fmt: skip


def freezes_by_default(init: str) -> bool:
    """Return whether `freeze_backbone: auto` freezes a backbone with these initial weights."""
    return init != "random"
