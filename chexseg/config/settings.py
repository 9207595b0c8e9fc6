"""What a cell is made of: every setting, in sections, with its bounds and default. Execution (workers, GPUs) is none of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from chexseg import pathologies
from chexseg.data.sampling.mixing import effective_probability
from chexseg.stages import configs
from chexseg.stages.configs import StageConfig

#: The values of `encoder.init` whose weights a study trains itself, unless `encoder.imported` says otherwise.
OWN_ENCODERS = ("chexpert", "moco")


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class _Classifying(Section):
    def __hash__(
        self,
    ) -> (
        int
    ):  # pydantic's own, by which frozen models are hashed, refuses what `uncertainty` may be
        return hash(tuple(value for name, value in self.__dict__.items() if name != "uncertainty"))


def _section(
    name: str, stage: type[StageConfig], *fields: str, base: type[Section] = Section
) -> type[Section]:
    """A section of the study file from fields of a stage's config: their types, bounds and defaults stand there alone."""
    chosen = {
        field: (stage.model_fields[field].annotation, stage.model_fields[field]) for field in fields
    }
    return create_model(name, __base__=base, **chosen)  # type: ignore[call-overload]


_CLASSIFY = tuple(name for name in configs.ClassifyConfig.model_fields if name != "seed")
Classify = _section("Classify", configs.ClassifyConfig, *_CLASSIFY, base=_Classifying)
Pretrain = _section("Pretrain", configs.PretrainConfig, *_CLASSIFY[1:], base=_Classifying)
Moco = _section(
    "Moco",
    configs.MoCoConfig,
    *(name for name in configs.MoCoConfig.model_fields if name not in ("architecture", "seed")),
)
Saliency = _section("Saliency", configs.SaliencyConfig, "images", "frontal_only")
Irnet = _section(
    "Irnet",
    configs.IRNetConfig,
    *(name for name in configs.IRNetConfig.model_fields if name not in ("negatives_empty", "seed")),
)
Fit = _section(
    "Fit", configs.FitConfig, "epochs", "batch_size", "learning_rate", "schedule", "loss", "clip_norm", "flips", "precision",
    "channels_last", "compile", "checkpoint", "thresholds", "samples_per_epoch",
)  # fmt: skip


class Encoder(Section):
    architecture: str = configs.FitConfig.model_fields["architecture"].default
    #: chexpert, moco: this study's own `pretrain` or `moco`. imagenet: what `chexseg encoder import` has put into the store.
    init: Literal["random", "imagenet", "chexpert", "moco"] = configs.FitConfig.model_fields[
        "init"
    ].default
    #: Take chexpert's or moco's weights too from an import.
    imported: bool = False


class ExpertSplit(Section):
    train: int = Field(default=147, ge=1)
    select: int = Field(default=40, ge=0)


class Labels(Section):
    #: Weak label kind: thresholded Grad-CAM, thresholded Grad-CAM++, or IRNet on Grad-CAM.
    weak: Literal["cam", "cam++", "irnet"] = "cam"
    #: Probability that a sample is an expert one.
    p: float = Field(default=1.0, ge=0, le=1)
    mixing: Literal["exact", "official"] = "exact"
    weak_images: int = Field(default=100, ge=1)
    prefer_positives: bool = False
    negatives_empty: bool = True
    expert_split: ExpertSplit = ExpertSplit()


class Distil(Section):
    #: Share of `train` that the teacher labels for a student; 0: the cell is no student.
    fraction: float = Field(default=0.0, ge=0, le=1)
    temperature: float = Field(default=10.0, gt=0)


class Score(Section):
    #: Pixels are counted at the training size, the paper's way, or at each image's own, CheXlocalize's.
    resolution: Literal["training", "own"] = configs.ScoreConfig.model_fields["resolution"].default


class Settings(Section):
    """Everything a cell is made of. What makes a section wrong is checked within it: cells put valid sections together."""

    pathologies: str | tuple[str, ...] = "all"
    #: Pixels of the square images' side. The paper: 320.
    size: int = configs.IngestConfig.model_fields["size"]
    #: Seed of everything that all cells share: expert split, classifier, encoders, IRNet.
    seed: int = 0
    #: Draws another set of weak images and another seed for the segmenter.
    trial: int = Field(default=0, ge=0)
    encoder: Encoder = Encoder()
    labels: Labels = Labels()
    classify: Classify = Classify()  # type: ignore[valid-type]
    pretrain: Pretrain = Pretrain()  # type: ignore[valid-type]
    moco: Moco = Moco()  # type: ignore[valid-type]
    saliency: Saliency = Saliency()  # type: ignore[valid-type]
    irnet: Irnet = Irnet()  # type: ignore[valid-type]
    fit: Fit = Fit()  # type: ignore[valid-type]
    distil: Distil = Distil()
    score: Score = Score()

    @field_validator("irnet")
    @classmethod
    def _irnet_can_run(cls, value: Any) -> Any:
        if value.background > value.foreground:
            raise ValueError(
                f"background is above foreground, {value.foreground:g}; allowed: at most that"
            )
        if value.freeze_backbone and value.init == "random":
            raise ValueError(
                "freeze_backbone: a random backbone never learns; allowed: with init: imagenet"
            )
        return value

    @field_validator("pathologies", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if not isinstance(value, str) and not (
            isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
        ):
            raise ValueError("allowed: all, or a list of names")
        return pathologies.select(value)


def canonical(settings: Settings) -> Settings:
    """The settings with what cannot matter set to its default: two cells are one where these are equal."""
    labels, encoder = settings.labels, settings.encoder
    # A student learns from a fully supervised teacher.
    probability = (
        1.0 if settings.distil.fraction > 0 else effective_probability(labels.p, labels.mixing)
    )
    if probability in (0, 1):
        idle = ["mixing"] + ["weak", "weak_images", "prefer_positives", "negatives_empty"] * int(
            probability
        )
        labels = labels.model_copy(
            update={"p": probability} | {name: getattr(Labels(), name) for name in idle}
        )
    if encoder.imported and encoder.init not in OWN_ENCODERS:  # the others have one source each
        encoder = encoder.model_copy(update={"imported": Encoder().imported})
    if labels is settings.labels and encoder is settings.encoder:
        return settings
    return settings.model_copy(update={"labels": labels, "encoder": encoder})


# ---- dotted settings: "labels.p" is the field p of the section labels --------------------------------------------------


def section_at(key: str) -> type[Section] | None:
    """The section that a dotted key names; None for a setting. Raises KeyError for neither."""
    model: Any = Settings
    for part in key.split("."):
        fields = model.model_fields if is_section(model) else {}
        model = fields[part].annotation
    return model if is_section(model) else None


def setting_names(model: type[Section] = Settings, prefix: str = "") -> Iterator[str]:
    """Every setting of a section, dotted."""
    for name, field in model.model_fields.items():
        if is_section(field.annotation):
            yield from setting_names(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def flat(key: str, value: Any) -> dict[str, Any]:
    """A dotted key and its value as dotted settings: a section's mapping is one for each of its settings."""
    try:
        is_setting = section_at(key) is None
    except KeyError:  # whoever validates it says so
        is_setting = True
    if is_setting or not isinstance(value, Mapping):
        return {key: value}
    return {
        name: inner
        for part, deeper in value.items()
        for name, inner in flat(f"{key}.{part}", deeper).items()
    }


def merged(given: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with dotted ones (`flat`) laid over them."""
    out = dict(given)
    for key, value in point.items():
        head, _, rest = key.partition(".")
        inner = out.get(head)
        out[head] = (
            merged(inner if isinstance(inner, dict) else {}, {rest: value}) if rest else value
        )
    return out


def is_section(annotation: Any) -> bool:
    """Whether a field holds further settings."""
    return isinstance(annotation, type) and issubclass(annotation, Section)
