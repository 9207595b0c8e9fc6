"""The colours and symbols of all figures, tables and overlays of a report."""

from __future__ import annotations

from dataclasses import dataclass

# Okabe and Ito (2008), "Color Universal Design": distinguishable with all common types of colour
# vision.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, GREY = "#E69F00", "#56B4E9", "#F0E442", "#767676"


@dataclass(frozen=True)
class Series:
    """The look of a series. dark: its colour on a dark page. symbol: plotly's name."""

    colour: str
    dark: str
    symbol: str


#: The masks that a network learned from, and what it is compared with. Encoder initializations
#: have no colours; figures separate them by position, so a colour never has two meanings. Symbols
#: distinguish the series without colour.
SERIES: dict[str, Series] = {
    "cam": Series(BLUE, "#3a9bd6", "circle"),
    "cam++": Series(SKY, "#a5d8f5", "triangle-up"),
    "irnet": Series(VERMILLION, "#e8813a", "square"),
    "full": Series(GREEN, "#2bbd92", "diamond"),
    "student": Series(PURPLE, PURPLE, "hexagon"),
    "radiologists": Series(GREY, GREY, "star"),
    "baseline": Series(GREY, GREY, "x"),
    "paper": Series(GREY, GREY, "circle"),
}
COLOURS: dict[str, str] = {name: series.colour for name, series in SERIES.items()}
SYMBOLS: dict[str, str] = {name: series.symbol for name, series in SERIES.items()}


def css_name(series: str) -> str:
    """Return the CSS name of a series; CSS names contain no plus sign."""
    return series.replace("+", "-plus")


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
