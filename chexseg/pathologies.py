"""The ten pathologies, CheXpert's fourteen observations, and their aliases."""

from __future__ import annotations

from collections.abc import Iterable

from chexseg.errors import UserError, nearest

#: The ten pathologies, in the order of all K axes of this project and of the paper's Table 1.
PATHOLOGIES: tuple[str, ...] = (
    "Airspace Opacity",
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Lung Lesion",
    "Pleural Effusion",
    "Pneumothorax",
    "Support Devices",
)

#: CheXpert's columns, in the order of its CSV files.
OBSERVATIONS: tuple[str, ...] = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

#: CheXpert's competition tasks, used to select the classifier's checkpoint (Irvin et al. 2019,
#: section 5).
COMPETITION: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
)

#: Pathologies that are frequent enough in 40 held-out images to select a segmenter's checkpoint.
COMMON: tuple[str, ...] = (
    "Enlarged Cardiomediastinum",
    "Support Devices",
    "Cardiomegaly",
    "Atelectasis",
)

#: CheXpert's name -> CheXlocalize's name, which this project uses.
ALIASES: dict[str, str] = {"Lung Opacity": "Airspace Opacity"}


def observation(pathology: str) -> str:
    """Return the CheXpert column with the image-level labels of a pathology."""
    return next((alias for alias, name in ALIASES.items() if name == pathology), pathology)


def observation_indices(pathologies: Iterable[str]) -> list[int]:
    """Return the positions in `OBSERVATIONS` of the pathologies' columns."""
    return [OBSERVATIONS.index(observation(name)) for name in pathologies]


def select(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return the named pathologies in the project's order; ``"all"`` means the ten.

    Aliases are accepted. Raises `UserError` for an unknown name, an empty list or a repeated name.
    """
    if names == "all":
        return PATHOLOGIES
    if isinstance(names, str):
        names = [names]
    wanted = [ALIASES.get(name, name) for name in names]
    for name in wanted:
        if name not in PATHOLOGIES:
            raise UserError(
                f"unknown pathology {name!r}{nearest(name, PATHOLOGIES)};"
                f" allowed: all, {', '.join(PATHOLOGIES)}"
            )
    if not wanted or len(set(wanted)) != len(wanted):
        raise UserError("pathologies: name at least one, each once")
    return tuple(name for name in PATHOLOGIES if name in wanted)
