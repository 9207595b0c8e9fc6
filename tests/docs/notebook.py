"""Read the notebook of the tutorials."""

from __future__ import annotations

import json

from tests.docs.pages import ROOT

NOTEBOOK = ROOT / "docs" / "tutorials" / "python.ipynb"
#: Printed between the outputs of two cells.
MARK = "---- next cell ----"


def cells() -> list[tuple[str, str]]:
    """Return (code, printed text) of each code cell."""
    notebook = json.loads(NOTEBOOK.read_text())
    return [
        (
            "".join(cell["source"]),
            "".join(line for output in cell["outputs"] for line in output["text"]),
        )
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
