"""The config of every stage. All fields of a config are part of the key of its results.

No PyTorch here: planning a study needs these classes, and nothing else of a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from chexseg.data import chexpert
from chexseg.errors import UserError, nearest
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES


class StageConfig(BaseModel):
    """Base of the config of a stage."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class IngestConfig(StageConfig):
    split: Literal["train", "valid", "test"]
    #: Pixels of the square's side; the networks need a multiple of 32. The paper: 320.
    size: int = Field(default=320, ge=32, le=2048, multiple_of=32)


def _policies(value: Any) -> Any:
    """One fault in one line; pydantic would tell of each type that the value might have had."""
    for name in value if isinstance(value, Mapping) else ():
        if name not in OBSERVATIONS:
            raise ValueError(
                f"no such observation: {name}{nearest(name, OBSERVATIONS)}; allowed: {', '.join(OBSERVATIONS)}"
            )
    for policy in value.values() if isinstance(value, Mapping) else [value]:
        if policy not in chexpert.POLICIES:
            allowed = f"{', '.join(chexpert.POLICIES)}, or one of them for each observation"
            raise ValueError(
                f"no such policy{nearest(policy, chexpert.POLICIES)}; allowed: {allowed}"
            )
    return value


class ClassifyConfig(StageConfig):
    #: densenet121, or any encoder of segmentation-models-pytorch. The paper: densenet121.
    architecture: str = "densenet121"
    #: What becomes of uncertain labels: "ignore" masks them out of the loss. One policy, or a mapping from observation to
    #: policy, with "zeros" for those it doesn't name.
    uncertainty: Annotated[str | dict[str, str], BeforeValidator(_policies)] = "zeros"
    #: Passes over `train`. The paper: 3.
    epochs: int = Field(default=3, ge=1)
    #: The paper: 16.
    batch_size: int = Field(default=16, ge=2)
    #: Adam's, with default betas, fixed. The paper: 1e-4.
    learning_rate: float = Field(default=1e-4, gt=0)
    #: Iterations between two checkpoints, of which the best is kept. The paper: 4,800.
    checkpoint_every: int = Field(default=4800, ge=1)
    #: Of the forward pass; weights, their gradients and Adam stay float32. bfloat16 is for GPUs. The paper doesn't say.
    precision: Literal["float32", "bfloat16"] = "float32"
    #: Start the last layer's bias at the observations' log odds instead of near 0. In a short training the weights need not
    #: carry the prevalence then, which would leave few positive ones and empty CAMs. The paper: no.
    prior_bias: bool = False
    seed: int = 0


class PretrainConfig(ClassifyConfig):
    architecture: str = "resnet18"


class MoCoConfig(StageConfig):
    """Where the paper's checkpoints come from MoCo-CXR's code decides: its published script and its defaults."""

    #: Any encoder of segmentation-models-pytorch. The paper: resnet18. MoCo-CXR starts from ImageNet's weights, this from
    #: nothing.
    architecture: str = "resnet18"
    #: Passes over `train`. MoCo-CXR: 20; MoCo v2: 200 and 800.
    epochs: int = Field(default=20, ge=1)
    #: MoCo-CXR: 16; MoCo v2: 256.
    batch_size: int = Field(default=16, ge=2)
    #: Adam's at the start, falling to 0 along half a cosine, as in MoCo v2 (SGD, 0.03). MoCo-CXR: Adam, 1e-4, a tenth of it
    #: after 12 epochs and again after 18.
    learning_rate: float = Field(default=1e-4, gt=0)
    #: L2 penalty. MoCo v2 and MoCo-CXR: 1e-4.
    weight_decay: float = Field(default=1e-4, ge=0)
    #: Keys that are the negatives. MoCo-CXR: 24,576; MoCo v2: 65,536. null: MoCo-CXR's, but at most a quarter of the training
    #: images, so that an image rarely meets its own key of the pass before as a negative.
    queue: int | None = Field(default=None, ge=1)
    #: Of the key network. MoCo v2 and MoCo-CXR: 0.999.
    momentum: float = Field(default=0.999, ge=0, lt=1)
    #: Of the softmax. MoCo v2 and MoCo-CXR: 0.2.
    temperature: float = Field(default=0.2, gt=0)
    #: Smallest share of an image's area in a view. MoCo v2: 0.2. MoCo-CXR: the whole but for what makes it a square, because
    #: a crop may lose the disease.
    crop: float = Field(default=0.5, gt=0, le=1)
    #: Largest angle in degrees. MoCo-CXR: 10; MoCo v2: none.
    rotation: float = Field(default=10, ge=0, le=180)
    #: Probability of a horizontal flip. MoCo v2 and MoCo-CXR: 0.5.
    flip: float = Field(default=0.5, ge=0, le=1)
    #: Largest relative changes. MoCo v2: 0.4 each in four of five views. MoCo-CXR: none.
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)
    #: Of the forward passes; weights, their gradients and Adam, embeddings and the queue stay float32. bfloat16 is for GPUs.
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0


#: Kind of a published encoder -> the `encoder.init` that starts from it.
ENCODER_KINDS = {"moco-cxr": "moco", "chexpert": "chexpert", "imagenet": "imagenet"}


class ImportedConfig(StageConfig):
    #: One of `ENCODER_KINDS`.
    kind: str
    #: An encoder of segmentation-models-pytorch.
    architecture: str
    #: Of the weights, not of the file they came in (models.checkpoint_import).
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        check_encoder_kind(value)
        return value


def check_encoder_kind(kind: str) -> None:
    """Raise `UserError` for an unknown kind of published encoder."""
    if kind not in ENCODER_KINDS:
        raise UserError(
            f"--kind: found {kind!r}{nearest(kind, ENCODER_KINDS)}; allowed: {', '.join(ENCODER_KINDS)}"
        )


def import_command(kind: str, architecture: str) -> str:
    """Return the command that imports such an encoder."""
    file = "[FILE]" if kind == "imagenet" else "FILE"
    return f"chexseg encoder import {file} --kind {kind} --architecture {architecture}"


class SaliencyConfig(StageConfig):
    #: "cam": Grad-CAM, the paper's. "cam++": Grad-CAM++ (Chattopadhyay et al. 2018).
    kind: Literal["cam", "cam++"] = "cam"
    #: The classifier that is looked into.
    architecture: str = "densenet121"
    #: Training images that get a map: a seeded sample; null for all.
    images: int | None = Field(default=None, ge=1)
    #: Only frontal views get one.
    frontal_only: bool = True
    #: The expert images that thresholds may be chosen on are those the segmenter may train on. The paper: 147 and 40.
    expert_train: int = Field(default=147, ge=0)
    expert_select: int = Field(default=40, ge=0)
    #: A mask is empty where the image-level label is negative or blank.
    negatives_empty: bool = True
    seed: int = 0


class IRNetConfig(StageConfig):
    #: The backbone and its weights. The paper: resnet50, published with ImageNet's weights and frozen.
    architecture: str = "resnet50"
    init: Literal["random", "imagenet"] = "random"
    #: Keep the backbone as it is. Without pretrained weights that would leave nothing worth reading, so the default is no.
    freeze_backbone: bool = False
    #: Images to train on: a seeded sample of those with a CAM; null for all.
    images: int | None = Field(default=None, ge=2)
    #: Passes over them. The published design: 3.
    epochs: int = Field(default=3, ge=1)
    #: The paper: 16.
    batch_size: int = Field(default=16, ge=2)
    #: SGD's, with polynomial decay; the displacement branch at ten times as much. The paper: 0.1.
    learning_rate: float = Field(default=0.1, gt=0)
    #: Seeds: scaled CAM above this is foreground, below that background, the rest ignored. The paper: 0.3 and 0.05.
    foreground: float = Field(default=0.3, ge=0, le=1)
    background: float = Field(default=0.05, ge=0, le=1)
    #: Pixels of the stride-4 map between two that are paired in training. The published design: 10.
    radius: float = Field(default=10, gt=1)
    #: The random walk: neighbours within this radius, affinity to this power, 2 ** steps_log2 steps.
    walk_radius: float = Field(default=3, gt=1)
    walk_power: float = Field(default=5, gt=0)
    walk_steps_log2: int = Field(default=3, ge=0, le=10)
    #: Spread and scale each instance of the displacement field by itself, so that a weak second lesion stays beside a
    #: strong one (Ahn et al. 2019; the paper's appendix A.2). The default, and the authors' code, do each class as a whole.
    instances: bool = False
    #: Scaled scores above this are the weak mask. The authors' code: 0.6.
    threshold: float = Field(default=0.6, ge=0, le=1)
    negatives_empty: bool = True
    seed: int = 0


def _threshold(value: Any) -> Any:
    """One fault in one line; pydantic would tell of each type that the value might have had."""
    if value == "training":
        return value
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or round(20 * value, 9) not in range(20)
    ):
        raise ValueError("allowed: training, or one of 0, 0.05 .. 0.95")
    return float(value)


class FitConfig(StageConfig):
    pathologies: tuple[str, ...] = PATHOLOGIES
    #: Any encoder of segmentation-models-pytorch. The paper: resnet18.
    architecture: str = "resnet18"
    #: Where the weights of the input ``encoder`` come from; random: there is none.
    init: Literal["random", "imagenet", "chexpert", "moco"] = "chexpert"
    #: "masks": expert and weak masks mixed. "teacher": a teacher's soft masks (section 4.2).
    supervision: Literal["masks", "teacher"] = "masks"
    #: Probability that a sample is an expert one, and the rule it is drawn by (data.sampling.mixture).
    p: float = Field(default=1.0, ge=0, le=1)
    mixing: Literal["exact", "official"] = "exact"
    #: Weak label kind and number of weakly labelled images; null and 0 where p leaves none. The paper: 100 for Table 1.
    weak: str | None = None
    weak_images: int = Field(default=0, ge=0)
    #: Draw images with a positive label of a studied pathology first.
    prefer_positives: bool = False
    negatives_empty: bool = True
    #: Expert images to train on and to choose the epoch on. The paper: 147 and 40.
    expert_train: int = Field(default=147, ge=0)
    expert_select: int = Field(default=40, ge=0)
    split_seed: int = 0
    #: The paper: 20 epochs of as many samples as there are images, batches of 8, Adam at 1e-3 or, from 2,000 images on, 1e-4.
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=8, ge=2)
    learning_rate: float | None = Field(default=None, gt=0)
    #: "cosine": from learning_rate down to 0 over all steps. The paper: constant.
    schedule: Literal["constant", "cosine"] = "constant"
    #: On masks (models.losses.SEGMENTATION); students have their own. The paper: class-average-dice.
    loss: Literal["class-average-dice", "cross-entropy"] = "class-average-dice"
    #: Largest norm of the gradients of all weights together; null for none, as in the paper.
    clip_norm: float | None = Field(default=None, gt=0)
    #: Mirror each training image and its masks left to right with probability 1/2. The paper: no.
    flips: bool = False
    #: Of the forward pass; weights, their gradients and Adam stay float32. The paper: float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    #: Order of the weights and activations in memory, and torch.compile of the training step: speed, and the last bits.
    channels_last: bool = True
    compile: bool = False
    #: Which epoch's weights are kept: the best on the expert images held back for it, as in the paper, or the last.
    checkpoint: Literal["selection", "last"] = "selection"
    #: Output thresholds: per pathology the best on training images, as in the paper, or one number for all.
    thresholds: Annotated[str | float, BeforeValidator(_threshold)] = "training"
    #: Samples an epoch; null for as many as there are images.
    samples_per_epoch: int | None = Field(default=None, ge=2)
    #: A student's share of the frontal training images, of those that its teacher has labelled; null for all of these.
    fraction: float | None = Field(default=None, gt=0, le=1)
    #: Sigmoid temperature of a student's loss. The paper: 10.
    temperature: float = Field(default=10.0, gt=0)
    seed: int = 0


class DistilConfig(StageConfig):
    #: Share of the frontal images of `train`: the largest that a student asks for. The paper: 0.01 and 0.1.
    fraction: float = Field(default=0.01, gt=0, le=1)
    seed: int = 0


class ScoreConfig(StageConfig):
    #: Where pixels are counted: on the training squares, as the paper does, or at each image's own size against the
    #: masks as they are published, as CheXlocalize does.
    resolution: Literal["training", "own"] = "training"
