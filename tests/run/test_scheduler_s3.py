"""Run a small study with data and store on S3; inspect, report and find it from local data."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from chexseg import cli
from chexseg.store.store import Store
from tests.run.test_scheduler import SMALLEST
from tests.search.test_searcher import TEXT as SEARCHED

STUDY = {
    "name": "small",
    "axes": {"labels.p": [0.5, 1]},
    "settings": {
        "encoder": {"init": "random"},
        "labels": {"weak": "cam"},
        "score": {"resolution": "own"},
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "small.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


def run(*arguments: object):
    # Small files, because moto's time grows with the square of a file's size.
    small = {f"{name}.architecture": "mobilenet_v2" for name in ("encoder", "classify")}
    settings = [
        word
        for key, value in (SMALLEST | small).items()
        for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    return CliRunner().invoke(cli.app, [*map(str, arguments), *settings])


@pytest.mark.slow
def test_a_study_runs_and_is_reported_with_all_it_needs_on_s3(
    ray_session, s3, study, phantom_root, phantom_uri, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    place = s3("studies/small")
    where = ("--data", phantom_uri, "--store", place)
    ran = run("study", "run", study, *where, "--quiet")
    assert ran.exit_code == 0, ran.output
    assert (
        "9 stages computed" in ran.output and "cached in s3://bucket/studies/small," in ran.output
    )
    again = run("study", "run", study, "--data", phantom_root, "--store", place, "--quiet")
    assert "0 stages computed" in again.output and "9 cached" in again.output
    store = Store(place)
    artifacts = store.scan()
    assert len(artifacts) == 9 and all(manifest for _, manifest in artifacts.values())
    assert store.backend.tree(".claims") == {} and store.backend.partials() == {}

    kept = store.backend.read(
        {file: entry for file, entry in store.backend.tree("").items() if file.endswith(".json")}
    )
    assert not any(
        b"secret" in content or b"endpoint_override" in content for content in kept.values()
    )
    (record,) = [json.loads(content) for file, content in kept.items() if file.startswith(".runs/")]
    assert record["data"] == "s3://bucket/phantom"

    monkeypatch.setenv("CHEXSEG_CACHE", str(tmp_path / "another host"))
    status = run("study", "status", study, *where, "--json")
    assert json.loads(status.output)["complete"] is True
    reported = run("report", study, *where, "--out", tmp_path / "report")
    assert reported.exit_code == 0, reported.output
    text = (tmp_path / "report" / "index.html").read_text()
    assert "2 of 2 cells" in " ".join(re.sub(r"<[^>]*>", "", text).split())
    assert not list(tmp_path.glob("s3*")), "a URI was taken for a directory"


@pytest.mark.slow
def test_a_search_on_s3_is_continued_by_another_host(
    ray_session, s3, phantom_root, tmp_path, monkeypatch
):
    place, path = s3(f"searches/{tmp_path.name}"), tmp_path / "search.yaml"
    where = ("--data", phantom_root, "--store", place)

    def go_on(host: str, points: int) -> tuple[str, dict]:
        monkeypatch.setenv("CHEXSEG_CACHE", str(tmp_path / host))
        path.write_text(SEARCHED.replace("points: 3, trials: 2", f"points: {points}, trials: 1"))
        ran = CliRunner().invoke(cli.app, ["study", "run", str(path), *map(str, where), "--quiet"])
        assert ran.exit_code == 0, (ran.output, ran.exception)
        status = CliRunner().invoke(
            cli.app, ["study", "status", str(path), *map(str, where), "--json"]
        )
        return ran.output, json.loads(status.output)["search"]

    output, first = go_on("first", 1)
    assert "5 stages computed" in output and (first["done"], first["told"]) == (1, 0)
    output, second = go_on("second", 2)
    assert (second["done"], second["told"]) == (2, 0)
    assert second["best"]["selection_miou"] >= first["best"]["selection_miou"]
    assert Store(place).backend.tree(".claims") == {} and Store(place).backend.tree(".live") == {}
