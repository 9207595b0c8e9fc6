"""The study file: its schema, the cells it means, and its error messages.

A study names fixed settings and axes; a cell is one point of the axes. Where a setting makes others meaningless (no weak
labels at p = 1), those are set to one value, so that points that differ in nothing else become one cell.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from chexseg import pathologies
from chexseg.data.mixture_rules import effective_probability
from chexseg.errors import UserError, nearest
from chexseg.stages import classify, fit, ingest, irnet, moco, pretrain, saliency, score
from chexseg.stages.base import StageConfig
from chexseg.study import space

#: The values of `encoder.init` whose weights a study trains itself, unless `encoder.imported` says otherwise.
OWN_ENCODERS = ("chexpert", "moco")


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def _section(name: str, stage: type[StageConfig], *fields: str) -> type[Section]:
    """A section of the study file from fields of a stage's config: their types, bounds and defaults stand there alone."""
    chosen = {field: (stage.model_fields[field].annotation, stage.model_fields[field]) for field in fields}
    return create_model(name, __base__=Section, **chosen)  # type: ignore[call-overload]


_CLASSIFY = tuple(name for name in classify.Config.model_fields if name != "seed")
Classify = _section("Classify", classify.Config, *_CLASSIFY)
Pretrain = _section("Pretrain", pretrain.Config, *(name for name in _CLASSIFY if name != "architecture"))
Moco = _section("Moco", moco.Config, *(name for name in moco.Config.model_fields if name not in ("architecture", "seed")))
Saliency = _section("Saliency", saliency.Config, "images", "frontal_only")
Irnet = _section(
    "Irnet", irnet.Config, *(name for name in irnet.Config.model_fields if name not in ("negatives_empty", "seed"))
)
Fit = _section(
    "Fit", fit.Config, "epochs", "batch_size", "learning_rate", "schedule", "loss", "clip_norm", "flips", "precision",
    "channels_last", "compile", "checkpoint", "thresholds", "samples_per_epoch",
)  # fmt: skip


class Encoder(Section):
    architecture: str = fit.Config.model_fields["architecture"].default
    #: chexpert, moco: this study's own `pretrain` or `moco`. imagenet: what `chexseg encoder import` has put into the store.
    init: Literal["random", "imagenet", "chexpert", "moco"] = fit.Config.model_fields["init"].default
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
    resolution: Literal["training", "own"] = score.Config.model_fields["resolution"].default


class Settings(Section):
    """Everything a cell is made of. Execution (workers, GPUs) is not: it changes no result."""

    pathologies: str | tuple[str, ...] = "all"
    #: Pixels of the square images' side. The paper: 320.
    size: int = ingest.Config.model_fields["size"]
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
            raise ValueError("background is above foreground; allowed: at most that")
        if value.freeze_backbone and value.init == "random":
            raise ValueError("freeze_backbone: a random backbone never learns; allowed: with init: imagenet")
        return value

    @field_validator("pathologies")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return pathologies.select(value)


class Resources(Section):
    """What one cell takes while it runs. Not part of any key."""

    cpu: float = Field(default=1, gt=0)
    gpu: float = Field(default=0, ge=0, le=8)
    #: That share each batch of a fit; cpu and gpu are what each of them takes. 1: the fit runs where the cell does.
    workers: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _a_gpu_each(self) -> Resources:
        if self.workers > 1 and 0 < self.gpu < 1:
            raise ValueError(f"workers: found {self.workers} with gpu: {self.gpu:g}; allowed: a whole GPU each, or none")
        return self

    @field_validator("gpu")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("allowed: a share of one GPU, or a whole number of them")
        return value


class Study(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = ""
    reproduces: tuple[str, ...] = ()
    #: Dotted setting -> its values, or in a search a range of them; cells are the product.
    axes: dict[str, Annotated[Any, BeforeValidator(space.axis)]] = {}
    #: Further cells beside the product, each as dotted settings.
    also: tuple[dict[str, Any], ...] = ()
    settings: Settings = Settings()
    resources: Resources = Resources()
    #: With it the axes are searched (study.search) and not gone through.
    search: space.Search | None = None
    #: The settings as the file has them, before defaults.
    given: dict[str, Any] = Field(default={}, exclude=True)

    def cells(self) -> Iterator[tuple[dict[str, Any], Settings]]:
        """(point, settings) of every combination of the axes' values, then of every entry of `also`.

        Combinations that mean the same cell are all given: `collapse` tells which these are.
        """
        grid = itertools.product(*self.axes.values()) if self.axes or not self.also else ()
        points = (dict(zip(self.axes, values, strict=True)) for values in grid)
        for point in itertools.chain(points, self.also):
            yield point, self.at(point)

    def at(self, point: Mapping[str, Any]) -> Settings:
        """The settings with the dotted settings of a point laid over them. Raises pydantic's ValidationError."""
        return Settings.model_validate(_merged(self.given, point))


def collapse(settings: Settings) -> Settings:
    """The settings with what cannot matter set to its default: two cells are one where these are equal."""
    labels = settings.labels
    if settings.distil.fraction > 0:  # a student learns from a fully supervised teacher
        labels = labels.model_copy(update={"p": 1.0})
    probability = effective_probability(labels.p, labels.mixing)
    plain = Labels()
    update: dict[str, Any] = {}
    if probability == 1:
        update = {name: getattr(plain, name) for name in ("weak", "weak_images", "prefer_positives", "negatives_empty")}
    if probability in (0, 1):
        update |= {"mixing": plain.mixing, "p": probability}
    encoder = settings.encoder
    if encoder.init not in OWN_ENCODERS:  # the others have one source each
        encoder = encoder.model_copy(update={"imported": Encoder().imported})
    return settings.model_copy(update={"labels": labels.model_copy(update=update), "encoder": encoder})


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read a study file. Raises `UserError`: file, line, key, what was found, what is allowed, the nearest right name."""
    path = Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); a study file is needed") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: found no text; a study file is needed") from None
    return parse(text, str(path), overrides)


def parse(text: str, where: str, overrides: Mapping[str, Any] | None = None) -> Study:
    """A study from YAML text; `overrides` are dotted settings laid over the file's own (``--set``)."""
    try:
        lines = _lines(yaml.compose(text), where)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{where}:{mark.line + 1 if mark else 1}: not YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(document, dict):
        raise UserError(f"{where}: found a {type(document).__name__}; allowed: a mapping with name, axes and settings")
    given = document.get("settings") or {}
    if not isinstance(given, dict):
        raise UserError(f"{where}:{lines.get('settings', 1)}: settings: found {given!r}; allowed: a mapping")
    for key, value in (overrides or {}).items():
        _check_key(key, f"--set {key}")
        given = _merged(given, {key: value})
    document["settings"] = given
    document["axes"] = _axes(document.get("axes") or {}, where, lines)
    try:
        study = Study.model_validate({**document, "given": given})
    except ValidationError as error:
        raise UserError(_explain(error, where, lines, Study)) from None
    axes = study.axes
    if study.search is not None:
        _check_search(study, where, lines)
    for key, values in axes.items():
        place = f"{where}:{lines.get(f'axes.{key}', 1)}: axes.{key}"
        _check_key(key, place)
        if isinstance(values, space.Range):
            _check_range(study, key, values, place)
        elif not values or len({repr(value) for value in values}) != len(values):
            raise UserError(f"{place}: allowed: a list of different values, at least one")
    for number, entry in enumerate(study.also):
        for key in entry:
            _check_key(key, f"{where}:{lines.get(f'also.{number}.{key}', 1)}: also.{key}")
    for key in (*axes, *(key for entry in study.also for key in entry)):
        if key in ("pathologies", "size"):  # one report compares masks of one size and one set of pathologies
            raise UserError(f"{where}:{lines.get(f'axes.{key}', 1)}: {key}: found as an axis; allowed: in settings, once")
    lists = {key: values for key, values in axes.items() if not isinstance(values, space.Range)}
    points = [({key: value}, f"axes.{key}") for key, values in lists.items() for value in values]
    points += [({key: value}, f"also.{n}.{key}") for n, entry in enumerate(study.also) for key, value in entry.items()]
    for point, place in points:
        try:
            Settings.model_validate(_merged(given, point))
        except ValidationError as error:
            raise UserError(_explain(error, f"{where}:{lines.get(place, 1)}: {place}", {}, Settings)) from None
    return study


def _axes(axes: Any, where: str, lines: Mapping[str, int]) -> Any:
    """The axes with each mapping read as a range."""
    if not isinstance(axes, dict):
        return axes
    out = dict(axes)
    for key, values in axes.items():
        if isinstance(values, dict):
            try:
                out[key] = space.Range.model_validate(values)
            except ValidationError as error:
                place = f"axes.{key}"
                raise UserError(_explain(error, f"{where}:{lines.get(place, 1)}: {place}", {}, space.Range)) from None
    return out


def _check_search(study: Study, where: str, lines: Mapping[str, int]) -> None:
    """Raises `UserError` for what a grid may say and a search may not."""
    trials = f"{where}:{lines.get('axes.trial', 1)}: axes.trial: found in a search; allowed: search.trials, how many"
    for wrong, message in (
        ("trial" in study.axes, trials),
        (bool(study.also), f"{where}:{lines.get('also', 1)}: also: found in a search; allowed: axes alone"),
        (not study.axes, f"{where}:{lines.get('search', 1)}: search: found no axes; allowed: at least one"),
        (
            study.resources.workers > 1,
            f"{where}:{lines.get('resources', 1)}: resources.workers: found {study.resources.workers} in a search; allowed: 1",
        ),
        (
            study.settings.labels.expert_split.select == 0,
            f"{where}:{lines.get('settings.labels.expert_split.select', 1)}: labels.expert_split.select: found 0 in a search,"
            " which goes by the images held back; allowed: at least 1",
        ),
    ):
        if wrong:
            raise UserError(message)


def _check_range(study: Study, key: str, values: space.Range, place: str) -> None:
    """Raises `UserError` unless both ends are numbers that the setting may have."""
    if study.search is None:
        raise UserError(f"{place}: found a range; allowed: a list of values, or a section search beside the axes")
    for end in (values.low, values.high):
        try:
            number = value_of(study.at({key: end}), key)
        except ValidationError as error:
            raise UserError(_explain(error, place, {}, Settings)) from None
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise UserError(f"{place}: found a range for what is no number; allowed: a list of values")
        if isinstance(number, int) and values.step is not None and not values.step.is_integer():
            raise UserError(f"{place}: step: found {values.step:g} for whole numbers; allowed: a whole one")


def value_of(settings: Settings, key: str) -> Any:
    """The value of a dotted setting."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _merged(given: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with the dotted settings of a point laid over them."""
    out = dict(given)
    for key, value in point.items():
        head, _, rest = key.partition(".")
        inner = out.get(head)
        out[head] = _merged(inner if isinstance(inner, dict) else {}, {rest: value}) if rest else value
    return out


def _check_key(key: str, place: str) -> None:
    model: Any = Settings
    for position, part in enumerate(key.split(".")):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            known = list(_dotted(Settings))
            prefix = ".".join(key.split(".")[:position])
            allowed = [name for name in known if name.startswith(prefix)]
            raise UserError(f"{place}: no such setting{nearest(key, known)}; allowed: {', '.join(allowed or known)}")
        model = fields[part].annotation


def _dotted(model: Any, prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _dotted(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _explain(error: ValidationError, where: str, lines: Mapping[str, int], model: Any) -> str:
    """The first fault as one line; a key that nobody knows before one that is missing, which it may be misspelt."""
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in fault["loc"])
    line = next((lines[k] for k in (key, key.rpartition(".")[0]) if k in lines), None)
    place = f"{where}:{line}" if line else where
    if fault["type"] == "extra_forbidden":
        for part in fault["loc"][:-1]:
            annotation = model.model_fields[part].annotation
            model = next((kind for kind in get_args(annotation) if kind is not type(None)), annotation)
        allowed = [name for name in model.model_fields if name != "given"]
        return f"{place}: {key}: no such key{nearest(fault['loc'][-1], allowed)}; allowed: {', '.join(allowed)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "literal_error":
        message += nearest(fault["input"], re.findall(r"'([^']+)'", fault["ctx"]["expected"]))
    found = "" if fault["type"] == "missing" else f" found {fault['input']!r};"
    return f"{place}: {key}:{found} {message[:1].lower() + message[1:]}"


def _lines(node: yaml.Node | None, where: str, prefix: str = "") -> dict[str, int]:
    """Dotted key -> line in the file. Raises `UserError` for a key that stands twice, which YAML would pass over."""
    out: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if name in out:
                raise UserError(f"{where}:{key.start_mark.line + 1}: {name}: stands twice (before in line {out[name]})")
            out[name] = key.start_mark.line + 1
            out |= _lines(value, where, f"{name}.")
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            out |= _lines(value, where, f"{prefix}{number}.")
    return out
