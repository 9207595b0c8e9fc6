"""Test what the notebook of the tutorials shows; test_code_blocks.py executes it."""

from __future__ import annotations

import json

from tests.docs.notebook import NOTEBOOK, cells


def test_every_name_of_the_api_is_shown():
    import chexseg

    text = "".join(code for code, _ in cells())
    for name in ("load_study", "load_model"):
        assert f"chexseg.{name}(" in text
    for method in ("plan", "run", "results", "figures"):
        assert f"study.{method}(" in text
    assert "model.predict(" in text
    assert set(chexseg.__all__) == {"Model", "Study", "__version__", "load_model", "load_study"}


def test_the_notebook_has_no_counters_and_no_metadata_of_a_machine():
    notebook = json.loads(NOTEBOOK.read_text())
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert cell["metadata"] == {} and cell.get("execution_count") is None
