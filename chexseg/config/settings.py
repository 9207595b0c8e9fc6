"""Every setting of a cell, in sections, with its bounds and default.

How a cell is executed (workers, GPUs) is not a setting: see `study.Resources`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeGuard, cast, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
)

from chexseg import pathologies
from chexseg.config.published_rules import PUBLISHED
from chexseg.seeds import derive
from chexseg.stages import configs
from chexseg.stages.configs import StageConfig

#: Values of `encoder.init` whose weights the study trains, unless `encoder.imported` is true.
TRAINED_ENCODERS = ("chexpert", "moco")


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    #: As in `StageConfig`: field that was added later -> the value that means what was done before.
    ADDED: ClassVar[Mapping[str, Any]] = {}

    def document(self) -> dict[str, Any]:
        """Return the section as JSON, without added fields that have the value of before.

        It stays the same when settings are added.
        """
        values = self.model_dump(mode="json")
        for name, value in self:
            if name in self.ADDED and value == self.ADDED[name]:
                del values[name]
            elif isinstance(value, Section):
                values[name] = value.document()
        return values

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would read true as 1. Its strict mode would refuse 1e-3, which is text in YAML.
        annotation = cls.model_fields[str(info.field_name)].annotation
        types = {annotation, *get_args(annotation)}
        if isinstance(value, bool) and types & {int, float} and bool not in types:
            raise ValueError("expected: a number")
        return value


class _Classifying(Section):
    # pydantic's hash of a frozen model fails if `uncertainty` is a mapping.
    def __hash__(self) -> int:
        return hash(tuple(value for name, value in self.__dict__.items() if name != "uncertainty"))


def _section(
    name: str, stage: type[StageConfig], *fields: str, base: type[Section] = Section
) -> type[Section]:
    """Make a section from fields of a stage's config, with their types, bounds and defaults."""
    chosen = {
        field: (stage.model_fields[field].annotation, stage.model_fields[field]) for field in fields
    }
    section = create_model(name, __base__=base, **cast(Any, chosen))
    section.ADDED = {field: value for field, value in stage.ADDED.items() if field in fields}
    return section


#: A rule of `FitConfig`, or the published one of the cell.
_Checkpoint = Literal["selection", "best-threshold", "best-threshold-all", "last", "published"]
_threshold = partial(configs.validate_threshold, rules=(*configs.THRESHOLD_RULES, PUBLISHED))
_Thresholds = Annotated[str | float, BeforeValidator(_threshold)]
_StudentThresholds = Annotated[
    str | float | None,
    BeforeValidator(lambda value: None if value is None else _threshold(value)),
]

if TYPE_CHECKING:

    class Ingest(configs.IngestConfig):
        split: Literal["train", "valid", "test"] = "train"  # not in the section

    # A section has the same fields as its stage's config, or some of them.
    Classify = configs.ClassifyConfig
    Pretrain = configs.PretrainConfig
    Moco = configs.MoCoConfig
    Saliency = configs.SaliencyConfig
    Irnet = configs.IRNetConfig
    Fit = configs.FitConfig
else:
    Ingest = _section("Ingest", configs.IngestConfig, "image_resize", "mask_resize")
    _CLASSIFY = tuple(name for name in configs.ClassifyConfig.model_fields if name != "seed")
    Classify = _section("Classify", configs.ClassifyConfig, *_CLASSIFY, base=_Classifying)
    Pretrain = _section("Pretrain", configs.PretrainConfig, *_CLASSIFY[1:], base=_Classifying)
    Moco = _section(
        "Moco",
        configs.MoCoConfig,
        *(name for name in configs.MoCoConfig.model_fields if name not in ("architecture", "seed")),
    )
    Saliency = _section(
        "Saliency", configs.SaliencyConfig, "images", "frontal_only", "layer", "target",
        "threshold", "cutoff", "fill_holes",
    )  # fmt: skip
    Irnet = _section(
        "Irnet",
        configs.IRNetConfig,
        *(
            name
            for name in configs.IRNetConfig.model_fields
            if name not in ("negatives_empty", "seed")
        ),
    )
    _FIT = _section(
        "Fit", configs.FitConfig, "epochs", "batch_size", "learning_rate", "schedule", "loss",
        "clip_norm", "flips", "precision", "channels_last", "compile", "checkpoint", "thresholds",
        "samples_per_epoch", "epoch_size",
    )  # fmt: skip

    class Fit(_FIT):
        # As in the stage's config, or the published rule of each cell (`published_rules`).
        checkpoint: _Checkpoint = configs.FitConfig.model_fields["checkpoint"].default
        thresholds: _Thresholds = configs.FitConfig.model_fields["thresholds"].default


class Encoder(Section):
    #: Encoder of the segmenter, one of segmentation-models-pytorch. Paper: resnet18.
    architecture: str = configs.FitConfig.model_fields["architecture"].default
    #: Initial weights. chexpert, moco: trained by this study's `pretrain` or `moco`. imagenet:
    #: imported into the store by `chexseg encoder import`.
    init: Literal["random", "imagenet", "chexpert", "moco"] = configs.FitConfig.model_fields[
        "init"
    ].default
    #: Use imported weights for chexpert and moco too.
    imported: bool = False


class ExpertSplit(Section):
    ADDED = {"by": "patient"}

    #: Expert images to train on and to choose thresholds on. Paper: 147.
    train: int = Field(default=147, ge=1)
    #: Expert images held back to choose the epoch. Paper: 40.
    select: int = Field(default=40, ge=0)
    #: patient: no patient is in both lists. image: images are divided regardless of patients.
    #: Published: image. Paper: not stated.
    by: Literal["patient", "image"] = "patient"


class Labels(Section):
    #: Weak label kind: thresholded Grad-CAM, thresholded Grad-CAM++, or IRNet on Grad-CAM.
    weak: Literal["cam", "cam++", "irnet"] = "cam"
    #: Probability of sampling an image with expert masks.
    #: 1: full supervision; 0: weak supervision.
    p: float = Field(default=1.0, ge=0, le=1)
    #: How p decides a sample. exact: with probability p. official: with the probability of the
    #: published code, which rounds p down to a tenth; by floating point it turns 0.3, 0.6 and 0.7
    #: into 0.2, 0.5 and 0.6. published: official, and the image is the sample's index modulo the
    #: size of its set: of 147 expert images beside 100 weak ones, the first 100 are seen twice as
    #: often as the others. Published: published. Paper: probability p.
    mixing: Literal["exact", "official", "published"] = "exact"
    #: Number of weakly labelled images in a cell. Paper: 100.
    weak_images: int = Field(default=100, ge=1)
    #: Draw weakly labelled images with a positive label of a studied pathology first.
    prefer_positives: bool = False
    #: Empty a weak mask where the image-level label is negative or blank. Published: false, so an
    #: image has ten masks, whatever its labels. Paper: not stated.
    negatives_empty: bool = True
    expert_split: ExpertSplit = ExpertSplit()


class Distil(Section):
    ADDED = dict.fromkeys(("epochs", "learning_rate", "checkpoint", "thresholds"))

    #: Share of the frontal images of `train` that the teacher labels for a student; 0: this cell is
    #: not a student. Paper: 0.01 and 0.1.
    fraction: float = Field(default=0.0, ge=0, le=1)
    #: Sigmoid temperature of a student's loss. Paper and published: 10. At 1 the student's logits
    #: are as large as its teacher's.
    temperature: float = Field(default=10.0, gt=0)
    #: Passes of a student over its images; null for `fit.epochs`. Published: 100 by default.
    #: Paper: not stated.
    epochs: int | None = Field(default=None, ge=1)
    #: Initial learning rate of a student; null for `fit.learning_rate`. Paper: 1e-3. Published:
    #: 1e-4 by default.
    learning_rate: float | None = Field(default=None, gt=0)
    #: Rule for a student's epoch; null for `fit.checkpoint`. Published: not recorded; "published"
    #: takes its teacher's, best-threshold.
    checkpoint: _Checkpoint | None = None
    #: A student's output thresholds; null for `fit.thresholds`. Published: training-batches,
    #: against its teacher's raw logits. Paper: not stated.
    thresholds: _StudentThresholds = None


class Score(Section):
    #: Count pixels at the training size (the paper) or at each image's own (CheXlocalize).
    resolution: Literal["training", "own"] = configs.ScoreConfig.model_fields["resolution"].default


class Settings(Section):
    """All settings of a cell. A section is valid or not regardless of the other sections."""

    ADDED = {"ingest": Ingest(), "draw": 0}

    #: Pathologies to segment: all, or a list of names or their aliases. Paper: all ten.
    pathologies: str | tuple[str, ...] = "all"
    #: Side of the square images in pixels, a multiple of 32 because of the networks. Paper: 320.
    size: int = configs.IngestConfig.model_fields["size"]  # type: ignore[assignment] # a Field
    #: Seed of what the trials share (`draw`), and the start of the trials' seeds.
    seed: int = 0
    #: Draws anew what the trials share: expert split, classifier, encoders, IRNet and the images of
    #: students. Trials are nested in draws: trial 0 of two draws has nothing in common. Verdicts on
    #: encoders and weak labels need several draws.
    draw: int = Field(default=0, ge=0)
    #: Selects the set of weak images and the seed of the segmenter.
    trial: int = Field(default=0, ge=0)
    ingest: Ingest = Ingest()
    encoder: Encoder = Encoder()
    labels: Labels = Labels()
    classify: Classify = Classify()
    pretrain: Pretrain = Pretrain()
    moco: Moco = Moco()
    saliency: Saliency = Saliency()
    irnet: Irnet = Irnet()
    fit: Fit = Fit()
    distil: Distil = Distil()
    score: Score = Score()

    @property
    def shared_seed(self) -> int:
        """Return the seed of what the trials of this draw share; draw 0 has the given one."""
        return derive(self.seed, "draw", self.draw) if self.draw else self.seed

    @field_validator("irnet")
    @classmethod
    def _irnet_can_run(cls, value: Any) -> Any:
        if value.background > value.foreground:
            raise ValueError(
                f"background is above foreground, {value.foreground:g}; expected: at most that"
            )
        if value.freeze_backbone is True and value.init == "random":
            raise ValueError(
                "freeze_backbone: a random backbone never learns; expected: init: imagenet,"
                " chexpert or moco"
            )
        if value.smallest_scale > value.largest_scale:
            raise ValueError(
                f"smallest_scale is above largest_scale, {value.largest_scale:g};"
                " expected: at most that"
            )
        if value.instances and not value.boundaries:
            raise ValueError("instances: needs the trained network; expected: boundaries: true")
        return value

    @field_validator("pathologies", mode="before")
    @classmethod
    def _valid_names(cls, value: Any) -> Any:
        if not isinstance(value, str) and not (
            isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
        ):
            raise ValueError("expected: all, or a list of names")
        return pathologies.select(value)


#: Settings in which the cells of a study, and included studies, can't differ: one report compares
#: masks of one size, resized in one way, and one set of pathologies.
SHARED = ("pathologies", "size", "ingest")


# ---- dotted settings: "labels.p" is the field p of the section labels ----------------------------


def section_at(key: str) -> type[Section] | None:
    """Return the section named by a dotted key; None for a setting and for an unknown key."""
    model: Any = Settings
    for part in key.split("."):
        field = model.model_fields.get(part) if is_section(model) else None
        model = field and field.annotation
    return model if is_section(model) else None


def setting_names(model: type[Section] = Settings, prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every setting of a section."""
    for name, field in model.model_fields.items():
        if is_section(field.annotation):
            yield from setting_names(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def flat(key: str, value: Any) -> dict[str, Any]:
    """Return dotted setting -> value for a dotted key, which may name a section."""
    if not isinstance(value, Mapping) or section_at(key) is None:
        return {key: value}
    return {
        name: inner
        for part, deeper in value.items()
        for name, inner in flat(f"{key}.{part}", deeper).items()
    }


def merged(given: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings in which dotted ones (`flat`) replace those with the same name."""
    out = dict(given)
    for key, value in point.items():
        head, _, rest = key.partition(".")
        inner = out.get(head)
        out[head] = (
            merged(inner if isinstance(inner, dict) else {}, {rest: value}) if rest else value
        )
    return out


def is_section(annotation: object) -> TypeGuard[type[Section]]:
    """Return whether a field's type is a section."""
    return isinstance(annotation, type) and issubclass(annotation, Section)
