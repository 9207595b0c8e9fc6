"""Test that the page needs no network, lists what is missing, and exists for empty studies."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from chexseg.analysis.results import GRAPH_COLUMNS
from chexseg.analysis.study_scores import score
from chexseg.drawing import palette
from chexseg.report.write import WrittenReport
from chexseg.weak_label_kinds import KINDS
from tests.report.rendered import publish


class References(html.parser.HTMLParser):
    """Collects what a browser would load or follow, and all ids."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.loaded += [
            values[name] for name in ("src", "href", "srcset", "data", "poster") if values.get(name)
        ]
        self.ids += [values["id"]] if "id" in values else []


def references(text: str) -> References:
    parser = References()
    parser.feed(text.replace(get_plotlyjs(), ""))
    return parser


@pytest.fixture(scope="module")
def written(study, tmp_path_factory) -> WrittenReport:
    return publish([study], tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def text(written) -> str:
    return written.page.read_text(encoding="utf-8")


def test_the_page_loads_and_links_nothing_but_its_own_files(written, text):
    loaded = references(text).loaded
    elsewhere = {one for one in loaded if not one.startswith(("data:", "#"))}
    linked = {path.relative_to(written.page.parent).as_posix() for path in written.files}
    assert elsewhere == {one for one in linked if not one.endswith(".js")}
    without_plotly = text.replace(get_plotlyjs(), "")
    assert text.count(get_plotlyjs()) == 1
    assert not re.search(r"https?://|@import|url\((?!data:)", without_plotly)


def test_anchors_lead_somewhere_and_ids_are_unique(text):
    page_references = references(text)
    assert len(page_references.ids) == len(set(page_references.ids))
    assert {r[1:] for r in page_references.loaded if r.startswith("#")} <= set(page_references.ids)


def test_page_says_how_complete_it_is_and_what_is_missing(text):
    assert "15 of 16 cells finished" in text
    assert "irnet p=0.9 trial 1" in text and "loss is not finite" in text


def test_page_holds_the_key_of_every_cell(study, text):
    assert all(key in text for key in study.cells["cell"])


def test_files_stand_beside_the_page(written):
    names = {path.name for path in written.files}
    assert {
        "demo-table1.csv",
        "demo-table1.md",
        "demo-table1.tex",
        "demo-cells.csv",
        "demo-overlays.png",
    } <= names
    assert all(path.stat().st_size for path in written.files)
    assert not any(name.endswith(".html") for name in names), "tables and figures are on the page"


def test_write_returns_the_page_which_says_what_could_not_be_drawn(study, tmp_path, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "kaleido", None
    )  # importing it now fails, as where the extra isn't installed
    out = tmp_path / "new" / "out"
    bare = dataclasses.replace(study, image=None)
    assert publish([bare], out, images=True).page == out / "index.html"
    assert "kaleido isn&#39;t installed; hint: pip install" in (out / "index.html").read_text()
    assert not list(out.glob("figures/*.svg"))


def test_a_process_ends_whose_kaleido_could_not_start_chrome():
    """Kaleido left a thread that read a pipe forever."""
    pytest.importorskip("kaleido")
    code = """if True:
        import sys
        import plotly.graph_objects as go
        from chexseg.report.figures.study_figures import export
        sys.executable = "/nonexistent/python"  # by which Kaleido starts Chrome
        print(export({"a.png": go.Figure()}))
        """
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "BROWSER_PATH": "/bin/true"},
    )
    assert "no .png and .svg figures: FileNotFoundError" in answer.stdout
    assert answer.returncode == 0


def test_faults_that_kaleidos_libraries_ignore_are_not_printed():
    """Chrome's last message, and with it the word by which choreographer ends its own thread."""
    pytest.importorskip("kaleido")
    code = """if True:
        import os
        import sys
        import plotly.graph_objects as go
        import plotly.io
        from choreographer.channels.pipe import Pipe
        from chexseg.report.figures.study_figures import export

        def read(*_, **__):
            pipe = Pipe()
            pipe.open()
            os.write(pipe._write_from_browser, b'{"id": 1}\\0{bye}\\n\\0')
            print(pipe.read_jsons()[0])

        read()
        print("exported", file=sys.stderr)
        plotly.io.write_images = read
        export({})
        """
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert answer.stdout.splitlines() == ["[{'id': 1}]"] * 2
    before, _, during = answer.stderr.partition("exported\n")
    assert "JSONError decoding message. Ignoring" in before
    assert during == ""


def test_chrome_is_started_where_nobody_else_can_write_with_a_page_from_here(tmp_path):
    """It loads libraries that a file of the current directory names."""
    pytest.importorskip("kaleido")
    chrome = tmp_path / "chrome"
    chrome.write_text(f"#!/bin/sh\necho $PWD $TMPDIR > {tmp_path}/where\nexit 1\n")
    chrome.chmod(0o755)
    code = """if True:
        import sys
        import kaleido.kaleido
        import plotly.graph_objects as go
        from chexseg.report.figures.study_figures import export

        class Page(kaleido.PageGenerator):
            def generate_index(self, *arguments):
                html = super().generate_index(*arguments)
                print([line for line in html.splitlines() if "src=" in line and "//" in line])
                return html

        sys.modules["kaleido.kaleido"].PageGenerator = Page
        export({"a.png": go.Figure()})
        """
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **os.environ,
            "BROWSER_PATH": str(chrome),
        },
    )
    directory, temporary = (tmp_path / "where").read_text().split()
    assert directory == "/" and not Path(temporary).exists(), "what Chrome leaves is deleted"
    assert temporary != os.environ.get("TMPDIR", "/tmp")
    assert "plotly" in answer.stdout and "http" not in answer.stdout, answer.stdout + answer.stderr


def test_no_finished_cell_gives_a_page_that_says_so(study, tmp_path):
    empty = dataclasses.replace(
        study,
        cells=study.cells.iloc[:0],
        counts_CIK3=study.counts_CIK3[:0],
        stages=study.stages.iloc[:0],
    )
    text = publish([empty], tmp_path).page.read_text()
    assert "No cell has finished yet" in text and "0 of 1 cell finished" in text


def test_two_studies_of_one_name_keep_their_files_apart(tmp_path, build):
    small = build(pathologies=("Edema", "Consolidation"), images=6, students=False, drop=())
    written = publish([small, small], tmp_path)
    assert {"demo-table1.csv", "demo-2-table1.csv"} <= {path.name for path in written.files}
    page_references = references(written.page.read_text())
    assert len(page_references.ids) == len(set(page_references.ids))


def test_text_from_a_study_cannot_break_the_page(study, tmp_path):
    nasty = dataclasses.replace(
        study,
        title="</script><b>{{body}}",
        missing=study.missing.assign(reason="<img src=http://x>"),
        image=None,
    )
    text = publish([nasty], tmp_path).page.read_text()
    assert "<img src=http" not in text and "</script><b>" not in text
    assert "&lt;b&gt;{{body}}" in text


def test_no_text_of_others_can_keep_a_script_element_open(study, tmp_path):
    """`<!--<script>` keeps it open past `</script>`, so the page's own script would never run."""
    hostile = "<!--<script>"
    nasty = dataclasses.replace(
        study,
        cells=study.cells.assign(name=hostile, init=hostile),
        stages=study.stages.assign(host=hostile, label=hostile, data=hostile, settings="{}"),
        graph=pd.DataFrame([("k", "fit", hostile, "cached", 1.0, ())], columns=list(GRAPH_COLUMNS)),
        image=None,
    )
    text = publish([nasty], tmp_path).page.read_text()
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S)
    assert len(data) > 2 and any("u003c!--" in element for element in data)
    assert not any("<" in element for element in data)
    assert "<!--" not in text.replace(get_plotlyjs(), "")
    assert all(isinstance(json.loads(element), dict) for element in data)


def test_every_kind_of_weak_labels_has_a_look(text):
    """A CSS name can't contain a plus sign: a kind with one would have no colour."""
    for kind in KINDS:
        assert text.count(f"--{palette.css_name(kind)}: #") == 2, "light and dark"
        assert f".{palette.SERIES[kind].symbol}::before" in text or kind == "irnet", "a square"


def test_encoders_that_were_imported_are_kept_apart(study, tmp_path):
    several = [study.cells.assign(init=init) for init in ("imagenet", "moco", "random")]
    whole = dataclasses.replace(
        study,
        cells=pd.concat(several, ignore_index=True),
        counts_CIK3=np.concatenate([study.counts_CIK3] * len(several)),
        image=None,
    )
    text = publish([whole], tmp_path).page.read_text(encoding="utf-8")
    for init in ("imagenet", "moco", "random"):
        assert f"encoder {init}" in text
    scores = score(whole)
    assert {arm.init for arm in scores.of("student")} == {"imagenet", "moco", "random"}
    assert [variant.arms[0].init for variant in scores.variants] == [
        "imagenet",
        "moco",
        "random",
    ]
