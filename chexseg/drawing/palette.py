"""The colours and symbols of all figures, tables and overlays of a report."""

from __future__ import annotations

# Okabe and Ito (2008), "Color Universal Design": distinguishable with all common types of colour
# vision.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, GREY = "#E69F00", "#56B4E9", "#F0E442", "#767676"

#: The masks that a network learned from, and what it is compared with. Encoder initializations
#: have no colours; figures separate them by position, so a colour never has two meanings.
COLOURS: dict[str, str] = {
    "cam": BLUE,
    "cam++": SKY,
    "irnet": VERMILLION,
    "full": GREEN,
    "student": PURPLE,
    "radiologists": GREY,
    "paper": GREY,
}
#: The symbols of the same series, which distinguish them without colour.
SYMBOLS: dict[str, str] = {
    "cam": "circle",
    "cam++": "triangle-up",
    "irnet": "square",
    "full": "diamond",
    "student": "hexagon",
    "radiologists": "star",
}

#: Colours of ten areas on a grey radiograph. Seven of the palette are visible on it; the other
#: three are lighter variants with dashed outlines, so no two differ by colour alone.
PATHOLOGY_COLOURS: dict[str, str] = {
    "Airspace Opacity": SKY,
    "Atelectasis": ORANGE,
    "Cardiomegaly": VERMILLION,
    "Consolidation": YELLOW,
    "Edema": PURPLE,
    "Enlarged Cardiomediastinum": GREEN,
    "Lung Lesion": "#FF9AA2",
    "Pleural Effusion": "#3D8BFF",
    "Pneumothorax": "#B8F2C8",
    "Support Devices": "#FFD9A0",
}
DASHED: frozenset[str] = frozenset({"Lung Lesion", "Pneumothorax", "Support Devices"})
