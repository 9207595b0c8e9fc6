"""Configs of the stages. All fields of a config are part of the key of its results.

This module does not import PyTorch, so planning a study doesn't either. "The paper" is CheXseg;
a comment gives a field's unit, its range where the type doesn't, and the paper's value. The
comments are the descriptions in docs/reference/settings.md (docs/build_reference.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from chexseg.data import chexpert, resampling
from chexseg.errors import UserError, nearest
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.stages.configuration.base import Precision
from chexseg.stages.configuration.base import StageConfig as StageConfig
from chexseg.stages.configuration.irnet import IRNetConfig as IRNetConfig
from chexseg.stages.configuration.saliency import SaliencyConfig as SaliencyConfig


class IngestConfig(StageConfig):
    """Select the split of the raw data to convert to shards, and the size of its images."""

    split: Literal["train", "valid", "test"]
    #: Side of the square images in pixels, a multiple of 32 because of the networks. Paper: 320.
    size: int = Field(default=320, ge=32, le=2048, multiple_of=32)
    #: pad: resize the long side to `size`, and pad to a square. short-side: resize the short side
    #: to `size`, for a classifier's crops; such a result has no masks.
    geometry: Literal["pad", "short-side"] = "pad"
    #: Resizing of images. antialiased: the mean over all pixels that a new pixel covers, weighted
    #: by a triangle. bilinear: of the four nearest pixels only. Published: bilinear (OpenCV's
    #: INTER_LINEAR). Paper: not stated.
    image_resize: resampling.ImageResize = "antialiased"
    #: Resizing of expert masks, also of those that pixels are counted on at the training size.
    #: nearest: nearest neighbour. bilinear: rounded after bilinear interpolation. area: the mask
    #: with the best IoU with the original; none becomes empty. Published: bilinear. Paper: not
    #: stated.
    mask_resize: resampling.MaskResize = "nearest"

    ADDED = {"geometry": "pad", "image_resize": "antialiased", "mask_resize": "nearest"}


def _validate_policies(value: Any) -> Any:
    """Return valid policies unchanged. One error here replaces pydantic's one per union member."""
    for name in value if isinstance(value, Mapping) else ():
        if name not in OBSERVATIONS:
            raise ValueError(
                f"no such observation: {name}{nearest(name, OBSERVATIONS)};"
                f" allowed: {', '.join(OBSERVATIONS)}"
            )
    for policy in value.values() if isinstance(value, Mapping) else [value]:
        if policy not in chexpert.POLICIES:
            allowed = f"{', '.join(chexpert.POLICIES)}, or one of them for each observation"
            raise ValueError(
                f"no such policy{nearest(policy, chexpert.POLICIES)}; allowed: {allowed}"
            )
    return value


class ClassifyConfig(StageConfig):
    """Training of the classifier whose CAMs become weak masks."""

    #: densenet121, or any encoder of segmentation-models-pytorch. Paper: densenet121.
    architecture: str = "densenet121"
    #: How to treat uncertain labels: as "zeros" or "ones", or "ignore" them in the loss. One policy
    #: for all, or a mapping from observation to policy; observations it omits get "zeros".
    #: Published: ignore. Paper: not stated.
    uncertainty: Annotated[str | dict[str, str], BeforeValidator(_validate_policies)] = "zeros"
    #: Passes over `train`. Paper: 3.
    epochs: int = Field(default=3, ge=1)
    #: Images per step. Paper: 16.
    batch_size: int = Field(default=16, ge=2)
    #: Constant learning rate of Adam with default betas. Paper: 1e-4.
    learning_rate: float = Field(default=1e-4, gt=0)
    #: Steps between two checkpoints; the best checkpoint is kept. Paper: 4,800.
    checkpoint_every: int = Field(default=4800, ge=1)
    #: Precision of the passes; weights, gradients and Adam stay float32. tf32: faster convolutions
    #: on a GPU. bfloat16: for GPUs. Paper: not stated.
    precision: Precision = "float32"
    #: Start the last layer's bias at the observations' log odds instead of near 0. Otherwise the
    #: weights of a short training must encode the prevalence, which leaves few positive weights and
    #: empty CAMs. Paper: no.
    prior_bias: bool = False
    #: Initial weights, but for the last layer. imagenet: by `chexseg encoder import`. Published:
    #: imagenet. Paper: not stated.
    init: Literal["random", "imagenet"] = "random"
    #: pad: long side `size`, with borders. crop: short side `size`; a random square in training,
    #: the central one in evaluation and for CAMs. Published: crop. Paper: not stated.
    geometry: Literal["pad", "crop"] = "pad"
    #: Mean and standard deviation of the input. Published: imagenet. Paper: not stated.
    normalisation: Literal["chexpert", "imagenet"] = "chexpert"
    #: Checkpoints per pass over `train`, at equal distances; null: every `checkpoint_every` steps.
    #: Published: 10. Paper: null.
    checkpoints_per_epoch: int | None = Field(default=None, ge=1)
    #: Rows of the AUROC that chooses the checkpoint. studies: the maximum of a study's views.
    #: Published: studies. Paper: not stated.
    auroc_over: Literal["images", "studies"] = "images"
    seed: int = 0

    ADDED = {
        "init": "random",
        "geometry": "pad",
        "normalisation": "chexpert",
        "checkpoints_per_epoch": None,
        "auroc_over": "images",
    }


class PretrainConfig(ClassifyConfig):
    """Training of a classifier whose encoder initialises the segmenter. Paper: resnet18."""

    architecture: str = "resnet18"


class MoCoConfig(StageConfig):
    """MoCo pretraining of an encoder.

    The paper uses published MoCo-CXR checkpoints, so comments quote the published script of
    MoCo-CXR and its defaults.
    """

    #: Any encoder of segmentation-models-pytorch. Paper: resnet18.
    architecture: str = "resnet18"
    #: Passes over `train`. MoCo-CXR: 20; MoCo v2: 200 and 800.
    epochs: int = Field(default=20, ge=1)
    #: Images per step. MoCo-CXR: 16; MoCo v2: 256.
    batch_size: int = Field(default=16, ge=2)
    #: Initial learning rate of Adam, decayed to 0 along half a cosine as in MoCo v2 (SGD, 0.03).
    #: MoCo-CXR: Adam at 1e-4, divided by 10 after 12 and again after 18 epochs.
    learning_rate: float = Field(default=1e-4, gt=0)
    #: L2 penalty. MoCo v2 and MoCo-CXR: 1e-4.
    weight_decay: float = Field(default=1e-4, ge=0)
    #: Number of negative keys. MoCo-CXR: 24,576; MoCo v2: 65,536. null: 24,576, but at most a
    #: quarter of the training images, so that an image rarely meets its key of the previous pass.
    queue: int | None = Field(default=None, ge=1)
    #: Momentum of the key network's moving average. MoCo v2 and MoCo-CXR: 0.999.
    momentum: float = Field(default=0.999, ge=0, lt=1)
    #: Temperature of the softmax. MoCo v2 and MoCo-CXR: 0.2.
    temperature: float = Field(default=0.2, gt=0)
    #: Smallest share of an image's area in a view. MoCo v2: 0.2. MoCo-CXR: crops only to a square,
    #: because a smaller crop may lose the disease.
    crop: float = Field(default=0.5, gt=0, le=1)
    #: Largest rotation in degrees. MoCo-CXR: 10; MoCo v2: none.
    rotation: float = Field(default=10, ge=0, le=180)
    #: Probability of a horizontal flip. MoCo v2 and MoCo-CXR: 0.5.
    flip: float = Field(default=0.5, ge=0, le=1)
    #: Largest relative change of brightness. MoCo v2: 0.4 in four of five views. MoCo-CXR: none.
    brightness: float = Field(default=0.2, ge=0, le=1)
    #: Largest relative change of contrast. MoCo v2: 0.4 in four of five views. MoCo-CXR: none.
    contrast: float = Field(default=0.2, ge=0, le=1)
    #: Precision of the passes; weights, gradients, Adam, embeddings and the queue stay float32.
    #: tf32: faster convolutions on a GPU. bfloat16: for GPUs.
    precision: Precision = "float32"
    #: Initial weights. imagenet: by `chexseg encoder import`. MoCo-CXR: imagenet.
    init: Literal["random", "imagenet"] = "random"
    seed: int = 0

    ADDED = {"init": "random"}


#: Kind of a published encoder -> the `encoder.init` that starts from it.
ENCODER_KINDS = {"moco-cxr": "moco", "chexpert": "chexpert", "imagenet": "imagenet"}


def check_encoder_kind(kind: str) -> str:
    """Return a kind of published encoder. Raises `UserError` if it is unknown."""
    if kind not in ENCODER_KINDS:
        raise UserError(
            f"--kind: found {kind!r}{nearest(kind, ENCODER_KINDS)};"
            f" allowed: {', '.join(ENCODER_KINDS)}"
        )
    return kind


class ImportedConfig(StageConfig):
    """An encoder imported by `chexseg encoder import`."""

    #: A key of `ENCODER_KINDS`.
    kind: Annotated[str, AfterValidator(check_encoder_kind)]
    #: An encoder of segmentation-models-pytorch.
    architecture: str
    #: Digest of the weights, not of the file they came in (models.checkpoint_import).
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def import_command(kind: str, architecture: str) -> str:
    """Return the command that imports an encoder of this kind and architecture."""
    file = "[FILE]" if kind == "imagenet" else "FILE"
    return f"chexseg encoder import {file} --kind {kind} --architecture {architecture}"


#: Rules that choose a segmenter's output thresholds.
THRESHOLD_RULES = ("training", "training-batches", "selection", "logit-quantiles")


def validate_threshold(value: Any, rules: Sequence[str] = THRESHOLD_RULES) -> Any:
    """Return a valid threshold. One error here replaces pydantic's one per union member."""
    if isinstance(value, str) and value in rules:
        return value
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or round(20 * value, 9) not in range(20)
    ):
        raise ValueError(f"expected {', '.join(rules)}, or one of 0, 0.05 .. 0.95")
    return float(value)


class FitConfig(StageConfig):
    """Training of a segmenter, on masks or as a student of another segmenter."""

    ADDED = {"expert_split_by": "patient", "epoch_size": "used-images"}

    #: Pathologies to segment, one output each. Paper: all ten.
    pathologies: tuple[str, ...] = PATHOLOGIES
    #: Any encoder of segmentation-models-pytorch. Paper: resnet18.
    architecture: str = "resnet18"
    #: Origin of the weights in the input ``encoder``; "random" has no such input.
    init: Literal["random", "imagenet", "chexpert", "moco"] = "chexpert"
    #: "masks": expert and weak masks mixed. "teacher": a teacher's soft masks (section 4.2).
    supervision: Literal["masks", "teacher"] = "masks"
    #: Probability that a sample is an expert image, and the rule that draws it
    #: (data.sampling.mixture).
    p: float = Field(default=1.0, ge=0, le=1)
    mixing: Literal["exact", "official", "published"] = "exact"
    #: Kind of weak labels and number of weakly labelled images; null and 0 if p excludes them.
    #: Paper: 100 images in Table 1.
    weak: str | None = None
    weak_images: int = Field(default=0, ge=0)
    #: Draw weakly labelled images with a positive label of a studied pathology first.
    prefer_positives: bool = False
    #: Empty a weak mask where the image-level label is negative or blank. Published: false.
    negatives_empty: bool = True
    #: Expert images to train on, and to choose the epoch on. Paper: 147 and 40.
    expert_train: int = Field(default=147, ge=0)
    expert_select: int = Field(default=40, ge=0)
    #: What that split divides, and its seed.
    expert_split_by: Literal["patient", "image"] = "patient"
    split_seed: int = 0
    #: Passes over the training images, with as many samples in each as `epoch_size` says. 0: an
    #: untrained network, whose thresholds are chosen as usual; only at p = 1. Published: 20;
    #: students: 100. Paper: not stated.
    epochs: int = Field(default=20, ge=0)
    #: Images per step. Paper: 8.
    batch_size: int = Field(default=8, ge=2)
    #: Initial learning rate of Adam; null for the paper's. Paper: 1e-3 for little data (here: under
    #: 2,000 images) and for students, otherwise 1e-4. Published: 1e-4 by default, for students too.
    learning_rate: float | None = Field(default=None, gt=0)
    #: Learning rate over time. cosine: from `learning_rate` down to 0 over all steps. Paper:
    #: constant.
    schedule: Literal["constant", "cosine"] = "constant"
    #: Loss on masks; a student's loss is its cross-entropy against the teacher's soft masks. Paper:
    #: class-average-dice.
    loss: Literal["class-average-dice", "cross-entropy"] = "class-average-dice"
    #: Largest norm of the gradient of all weights together. Paper: null, no limit.
    clip_norm: float | None = Field(default=None, gt=0)
    #: Flip each training image and its masks horizontally with probability 1/2. Paper: no.
    flips: bool = False
    #: Precision of the passes; weights, gradients and Adam stay float32. tf32: faster convolutions
    #: on a GPU. bfloat16: for GPUs. Paper: float32.
    precision: Precision = "float32"
    #: Memory layout of weights and activations: channels last. It changes the speed and the last
    #: bits.
    channels_last: bool = True
    #: Compile the training step with torch.compile. It changes the speed and the last bits.
    compile: bool = False
    #: Epoch whose weights are kept, by IoU on the held-back expert images. selection: at 0.5, mean
    #: of the four common pathologies. best-threshold: each pathology at its best threshold there,
    #: of those that `thresholds` chooses from; mean of the same four. best-threshold-all: the same,
    #: mean of all. last: the last epoch. Published: best-threshold; weak supervision:
    #: best-threshold-all; a study's "published" is the one of each cell. Paper: not stated.
    checkpoint: Literal["selection", "best-threshold", "best-threshold-all", "last"] = "selection"
    #: Output thresholds: for each pathology that of 0, 0.05 .. 0.95 with the best pooled IoU.
    #: training: on the training images after training, expert ones unless p is 0.
    #: training-batches: on the batches of the kept epoch as trained on, expert and weak; a
    #: student's against its teacher's raw logits, a fault. selection: on the held-back expert
    #: images. logit-quantiles: as training, from quantiles of the logits. A number (0, 0.05 ..
    #: 0.95): the same threshold for all. Published: training-batches; weak supervision: selection;
    #: a study's "published" is the one of each cell. Paper: not stated.
    thresholds: Annotated[str | float, BeforeValidator(validate_threshold)] = "training"
    #: Samples per epoch; null for as many as there are images (`epoch_size`).
    samples_per_epoch: int | None = Field(default=None, ge=2)
    #: Images that an epoch has as many samples as. They differ at p = 0 only, where expert-and-weak
    #: counts the unused expert images too. Published: expert-and-weak for Table 1 (247 at p = 0).
    #: Paper: not stated.
    epoch_size: Literal["used-images", "expert-and-weak"] = "used-images"
    #: Share of the frontal training images that a student uses; null for all that its teacher has
    #: labelled. Paper: 0.01 and 0.1.
    fraction: float | None = Field(default=None, gt=0, le=1)
    #: Sigmoid temperature of a student's loss. Paper and published: 10.
    temperature: float = Field(default=10.0, gt=0)
    seed: int = 0


class DistilConfig(StageConfig):
    """Computation of a teacher's soft masks."""

    #: Share of the frontal images of `train` to label: the largest share that any student uses.
    #: Paper: 0.01 and 0.1.
    fraction: float = Field(default=0.01, gt=0, le=1)
    seed: int = 0


class ScoreConfig(StageConfig):
    """Counting of pixels on the test images."""

    #: Where pixels are counted: "training", on the square training images, as in the paper; or
    #: "own", at each image's original size against the published masks, as CheXlocalize does.
    resolution: Literal["training", "own"] = "training"
