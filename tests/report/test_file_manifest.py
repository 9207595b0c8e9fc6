"""Test that files in --out that chexseg hasn't written are neither overwritten nor deleted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest

from chexseg.analysis.study_analysis import analyse
from chexseg.cli.results import evaluate
from chexseg.errors import UserError
from chexseg.report import file_manifest
from chexseg.report import write as report
from chexseg.store import links

PAGE, TABLE = "index.html", "tables/demo-cells.csv"


@pytest.fixture(scope="module")
def publish(study):
    """Return a function that writes the report of a study, without overlays, into a directory."""
    analyses = [analyse(dataclasses.replace(study, image=None))]
    return lambda out: report.write(analyses, out, images=False)


def content(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in root.rglob("*")
    }


def write(out: Path, **contents: str) -> None:
    """Write files of tables/, and a page, as a report does."""
    files = {f"tables/{name}.csv": text.encode() for name, text in contents.items()}
    file_manifest.write(out, files | {PAGE: b"page"}, file_manifest.REPORT)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", [PAGE, TABLE, "report.json"])
def test_a_report_overwrites_no_file_of_others(publish, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"files": ["theirs"]}')
    before = content(tmp_path)
    with pytest.raises(UserError, match=rf"{name}: .*; hint: move the file away") as caught:
        publish(tmp_path)
    assert "\n" not in str(caught.value)
    assert content(tmp_path) == before


def test_a_report_writes_through_no_link(publish, tmp_path):
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    out.mkdir()
    (out / "tables").symlink_to(elsewhere)
    with pytest.raises(links.LinkError, match="tables: found a symbolic link"):
        publish(out)
    assert list(elsewhere.iterdir()) == []


def test_no_outdated_file_is_deleted_through_a_link(tmp_path):
    write(tmp_path / "out", old="1")
    (tmp_path / "out" / "tables").rename(tmp_path / "out" / "kept")
    (tmp_path / "out" / "tables").symlink_to("kept")
    file_manifest.write(tmp_path / "out", {PAGE: b"page"}, file_manifest.REPORT)
    assert (tmp_path / "out" / "kept" / "old.csv").read_text() == "1"


def test_a_report_is_written_again_until_a_file_is_edited(publish, tmp_path):
    first = publish(tmp_path)
    assert publish(tmp_path) == first
    (tmp_path / TABLE).write_text("edited")
    before = content(tmp_path)
    with pytest.raises(UserError, match="demo-cells.csv: was edited since chexseg wrote it"):
        publish(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("is_ours", [True, False])
def test_the_list_of_an_earlier_version_lacks_the_page(publish, tmp_path, is_ours):
    written = publish(tmp_path)
    files = json.loads((tmp_path / "report.json").read_text())["files"]
    assert files.pop(PAGE) and files.keys() == {
        path.relative_to(tmp_path).as_posix() for path in written.files
    }
    (tmp_path / "report.json").write_text(json.dumps({"files": files}))
    page = written.page.read_text()
    written.page.write_text(page.replace("demo", "omed") if is_ours else "theirs")
    if is_ours:
        publish(tmp_path)
        assert written.page.read_text() == page
    else:
        with pytest.raises(UserError, match="index.html: isn't chexseg's file"):
            publish(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"files": [[1,2]]}',
        '{"files": [[{}, 2]]}',
        '{"files": null}',
        "[1]",
        "[1, 2",
        "",
        "[" * 100_000,
        json.dumps({"files": {"tables/a\0b": sha256("")}}),
        json.dumps({"files": {"tables/\ud800": sha256("")}}),
        json.dumps({"files": {"tables/" + "a" * 300: sha256("")}}),
        json.dumps({"files": {"tables/../LICENSE": sha256("MIT")}}),
        json.dumps({"files": {"LICENSE": sha256("MIT")}}),
        json.dumps({"files": {"src/a.csv": sha256("MIT")}}),
        json.dumps({"files": {"tables/a.csv": "x"}}),
        json.dumps({"files": {"tables/a.csv": [1]}}),
    ],
)
def test_a_list_of_others_is_refused(tmp_path, text):
    for name in ("LICENSE", "report.json", "src/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text if name == "report.json" else "MIT")
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"report\.json: found a file that isn't chexseg's list"):
        write(tmp_path, a="new")
    assert content(tmp_path) == before


def test_nothing_outside_tables_and_figures_is_deleted(tmp_path):
    out = tmp_path / "out"
    (tmp_path / "elsewhere").mkdir()
    for path in (tmp_path / "elsewhere" / "a.csv", tmp_path / "b.csv"):
        path.write_text("MIT")
    write(out, a="1", b="2", c="3", d="4")
    (out / "figures").symlink_to(tmp_path / "elsewhere")
    (out / "tables" / "d.csv").unlink()
    (out / "tables" / "d.csv").symlink_to(tmp_path / "b.csv")
    (out / "x.csv").write_text("MIT")
    (out / "tables" / "b.csv").write_text("edited")
    listed = json.loads((out / "report.json").read_text())["files"]
    names = ("x.csv", "figures/a.csv", "tables/d.csv")
    listed |= dict.fromkeys(names, sha256("MIT"))
    (out / "report.json").write_text(json.dumps({"files": listed}))
    write(out, a="1")
    assert {path.name for path in (out / "tables").iterdir()} == {"a.csv", "b.csv", "d.csv"}
    assert (out / "x.csv").exists()
    assert (out / "figures" / "a.csv").exists() and (tmp_path / "b.csv").exists()


@pytest.mark.parametrize("written", range(5))
def test_a_report_that_was_killed_is_written_again(tmp_path, monkeypatch, written):
    """The process ends before the file of this number is replaced."""
    write(tmp_path, a="1", b="2", gone="3")
    replacing, count = links.replacing, iter(range(100))

    def killed(path):
        if next(count) == written:
            raise KeyboardInterrupt
        return replacing(path)

    monkeypatch.setattr(links, "replacing", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, a="4", b="5", c="6")
    monkeypatch.undo()
    write(tmp_path, a="7", b="5")
    assert content(tmp_path / "tables") == {"a.csv": b"7", "b.csv": b"5"}


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling link"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "compare.html"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"compare\.html: can't be read"):
        file_manifest.write(tmp_path, {path.name: b""}, file_manifest.COMPARE)


def test_evaluate_keeps_the_tables_of_other_metrics_and_files_of_others(phantom_root, tmp_path):
    truth = phantom_root / "CheXlocalize" / "gt_segmentations_test.json"
    for metric in ("pooled", "per-image", "pooled"):
        evaluate(str(truth), truth, metric, out=tmp_path)
    assert (tmp_path / "iou_summary_results.csv").exists()
    (tmp_path / "iou.csv").write_text("theirs")
    with pytest.raises(UserError, match=r"iou\.csv: was edited since chexseg wrote it"):
        evaluate(str(truth), truth, out=tmp_path)
    assert (tmp_path / "iou.csv").read_text() == "theirs"


def test_only_files_that_have_changed_are_written(tmp_path):
    def inodes() -> dict[str, int]:
        return {path.stem: path.stat().st_ino for path in (tmp_path / "tables").iterdir()}

    write(tmp_path, one="1", two="2")
    before = inodes()
    write(tmp_path, one="1", two="3", three="4")
    after = inodes()
    assert after["one"] == before["one"] and after["two"] != before["two"]
    assert content(tmp_path)["tables/two.csv"] == b"3"
    assert set(file_manifest._listed(tmp_path / "report.json")) == {
        PAGE, "tables/one.csv", "tables/two.csv", "tables/three.csv"
    }  # fmt: skip
