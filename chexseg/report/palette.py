"""The report's colours, symbols and type: one for one thing, in every figure, table and overlay."""

from __future__ import annotations

# Okabe and Ito (2008), "Color Universal Design": told apart with every common colour vision.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, GREY = "#E69F00", "#56B4E9", "#F0E442", "#767676"

#: What masks a network learned from, and whom it is compared with. The encoder's start has no colours of its own: figures
#: tell it by place, so that a colour never has two meanings.
COLOURS: dict[str, str] = {
    "cam": BLUE,
    "cam++": SKY,
    "irnet": VERMILLION,
    "full": GREEN,
    "student": PURPLE,
    "radiologists": GREY,
    "paper": GREY,
}
#: The same things without colour.
SYMBOLS: dict[str, str] = {
    "cam": "circle",
    "cam++": "triangle-up",
    "irnet": "square",
    "full": "diamond",
    "student": "hexagon",
    "radiologists": "star",
}

#: Ten areas on a grey film. The palette has seven that show there; the last three repeat a hue lighter and are outlined in
#: dashes, so that no two differ by colour alone.
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

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

#: How plotly.js draws, on the page as in the files: of its buttons only those that serve a reader.
CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}
