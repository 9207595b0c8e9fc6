"""List the values that the paper and its poster publish, each with its place in the source.

Paper: Gadgil et al., "CheXseg", MIDL 2021, arXiv:2102.10484. Poster: the authors' MIDL 2021 poster,
whose values differ.
"""

from __future__ import annotations

from collections.abc import Iterable

AVERAGE = "Avg. IoU"

#: The paper's names of the kinds of weak labels; it has no CAM++ (Grad-CAM++).
METHODS = {"cam": "CAM", "cam++": "CAM++", "irnet": "IRNet"}
PAPERS_METHODS = ("cam", "irnet")


def css_name(kind: str) -> str:
    """Return the CSS name of a kind of weak labels; CSS names contain no plus sign."""
    return kind.replace("+", "-plus")


#: The columns of Table 1: probabilities p. At p = 1 both methods share one value.
TABLE1_P: tuple[float, ...] = (0, 0.2, 0.4, 0.6, 0.8, 0.85, 0.9)

# Appendix C, Table 1: task -> (CAM at TABLE1_P, IRNet at TABLE1_P, both at p = 1). The encoder
# starts from CheXpert; 100 weak images; the mean of three trials. "Avg. IoU" is printed in the
# table, not computed here.
TABLE1: dict[str, tuple[tuple[float, ...], tuple[float, ...], float]] = {
    AVERAGE: (
        (0.163, 0.269, 0.274, 0.273, 0.290, 0.292, 0.299),
        (0.151, 0.250, 0.257, 0.263, 0.281, 0.281, 0.294),
        0.263,
    ),
    "Airspace Opacity": (
        (0.189, 0.384, 0.388, 0.392, 0.410, 0.416, 0.415),
        (0.262, 0.379, 0.378, 0.387, 0.407, 0.408, 0.413),
        0.405,
    ),
    "Atelectasis": (
        (0.176, 0.319, 0.313, 0.308, 0.332, 0.327, 0.324),
        (0.124, 0.278, 0.282, 0.289, 0.319, 0.321, 0.320),
        0.328,
    ),
    "Cardiomegaly": (
        (0.325, 0.459, 0.470, 0.449, 0.465, 0.465, 0.470),
        (0.249, 0.420, 0.431, 0.456, 0.462, 0.459, 0.471),
        0.476,
    ),
    "Consolidation": (
        (0.107, 0.099, 0.100, 0.100, 0.114, 0.119, 0.112),
        (0.0987, 0.105, 0.109, 0.116, 0.123, 0.122, 0.132),
        0.106,
    ),
    "Edema": (
        (0.176, 0.239, 0.253, 0.246, 0.260, 0.263, 0.258),
        (0.159, 0.229, 0.218, 0.225, 0.242, 0.241, 0.245),
        0.248,
    ),
    "Enlarged Cardiomediastinum": (
        (0.165, 0.522, 0.521, 0.522, 0.538, 0.539, 0.547),
        (0.267, 0.509, 0.510, 0.515, 0.530, 0.533, 0.554),
        0.549,
    ),
    "Lung Lesion": (
        (0.059, 0.072, 0.063, 0.059, 0.066, 0.075, 0.135),
        (0.018, 0.0449, 0.0508, 0.048, 0.057, 0.048, 0.107),
        0.003,
    ),
    "Pleural Effusion": (
        (0.234, 0.258, 0.261, 0.257, 0.271, 0.271, 0.269),
        (0.190, 0.207, 0.227, 0.231, 0.248, 0.247, 0.252),
        0.248,
    ),
    "Pneumothorax": (
        (0.052, 0.103, 0.107, 0.103, 0.153, 0.154, 0.159),
        (0.014, 0.089, 0.117, 0.116, 0.165, 0.163, 0.167),
        0.003,
    ),
    "Support Devices": (
        (0.148, 0.234, 0.264, 0.274, 0.290, 0.287, 0.297),
        (0.127, 0.243, 0.244, 0.252, 0.261, 0.266, 0.278),
        0.267,
    ),
}

#: Appendix D, Table 2: (weak label kind, encoder's start, weak images) -> (test mIoU, half width
#: of its 95% interval).
TABLE2: dict[tuple[str, str, int], tuple[float, float]] = {
    ("cam", "random", 100): (0.074, 0.00783),
    ("cam", "random", 2000): (0.126, 0.00275),
    ("cam", "random", 20000): (0.136, 0.00990),
    ("cam", "imagenet", 100): (0.082, 0.00396),
    ("cam", "imagenet", 2000): (0.132, 0.00687),
    ("cam", "imagenet", 20000): (0.139, 0.00095),
    ("cam", "moco", 100): (0.084, 0.00238),
    ("cam", "moco", 2000): (0.133, 0.00002),
    ("cam", "moco", 20000): (0.139, 0.00076),
    ("cam", "chexpert", 100): (0.129, 0.00036),
    ("cam", "chexpert", 2000): (0.141, 0.00003),
    ("cam", "chexpert", 20000): (0.142, 0.00095),
    ("irnet", "random", 100): (0.076, 0.00133),
    ("irnet", "random", 2000): (0.105, 0.00292),
    ("irnet", "random", 20000): (0.111, 0.00103),
    ("irnet", "imagenet", 100): (0.081, 0.00245),
    ("irnet", "imagenet", 2000): (0.117, 0.00576),
    ("irnet", "imagenet", 20000): (0.124, 0.00001),
    ("irnet", "moco", 100): (0.082, 0.00007),
    ("irnet", "moco", 2000): (0.120, 0.00010),
    ("irnet", "moco", 20000): (0.128, 0.00001),
    ("irnet", "chexpert", 100): (0.125, 0.00031),
    ("irnet", "chexpert", 2000): (0.146, 0.00002),
    ("irnet", "chexpert", 20000): (0.156, 0.00000),
}


#: Printed values, even where other printed values imply a different one: 0.299 is 13.7% above 0.263
#: and 91.7% above 0.156. The two gaps imply that the radiologists' mIoU is 0.356 and 0.355, which
#: is printed nowhere. mIoU, except for the shares of the gap and the relative differences, in %.
HEADLINES: dict[str, float] = {
    "chexseg": 0.299,  # paper, sections 1, 4.1 and 5
    "full": 0.263,  # paper, sections 1, 4.1 and 5; caption of Figure 4a, with CheXpert's encoder
    # Table 2's IRNet with CheXpert's encoder and 20,000 images; paper, sections 1, 4.1 and 5.
    # Table 1's p = 0 (100 images) is 0.163 and 0.151.
    "weak": 0.156,
    "gap to radiologists closed": 71.6,  # paper, abstract, sections 1 and 4.4
    "chexseg over radiologists, Atelectasis": 165,  # paper, section 4.4
    "chexseg over radiologists, Airspace Opacity": 79,
    "chexseg over radiologists, Pleural Effusion": 26,
    "poster chexseg": 0.27,  # poster, Experiments
    "poster full": 0.246,
    "poster weak": 0.156,
    "poster gap to radiologists closed": 57.2,  # poster, Comparison to Radiologists
}

#: The pathologies on which CheXseg scores above the radiologists (paper, section 4.4; poster,
#: Comparison to Radiologists).
ABOVE_RADIOLOGISTS = ("Atelectasis", "Airspace Opacity", "Pleural Effusion")


def table1(task: str, method: str, p: float) -> float | None:
    """Return Table 1's IoU of a pathology or ``"Avg. IoU"``, or None if it has no such value.

    method: "cam" or "irnet", in upper or lower case.
    """
    method = method.lower()
    if task not in TABLE1:
        return None
    cam, irnet, full = TABLE1[task]
    if abs(p - 1) < 1e-9:  # no weak labels, so the value holds for all methods
        return full
    if method not in PAPERS_METHODS:
        return None
    row = cam if method == "cam" else irnet
    return next(
        (value for column, value in zip(TABLE1_P, row, strict=True) if abs(column - p) < 1e-9), None
    )


def table1_average(pathologies: Iterable[str], method: str, p: float) -> float | None:
    """Return Table 1's mean over the named pathologies; for all ten, the printed average."""
    names = list(pathologies)
    if set(names) == set(TABLE1) - {AVERAGE}:
        return table1(AVERAGE, method, p)
    values = [value for name in names if (value := table1(name, method, p)) is not None]
    return sum(values) / len(values) if values and len(values) == len(names) else None


def table2(method: str, init: str, weak_images: int) -> tuple[float, float] | None:
    """Return Table 2's (mIoU, half width of its interval) of a weakly supervised arm, or None."""
    return TABLE2.get((method.lower(), init, int(weak_images)))
