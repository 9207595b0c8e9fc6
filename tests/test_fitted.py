"""Test where `predict` looks for a segmenter."""

from __future__ import annotations

from pathlib import Path

from chexseg import fitted

FIT = "a" * 64


def test_a_uri_is_no_folder_of_the_current_directory(tmp_path, monkeypatch):
    """A folder that somebody has left there would predict with other weights."""
    monkeypatch.chdir(tmp_path)
    uri = f"s3://a:b@bucket/store/fit/{FIT}?endpoint_override=127.0.0.1%3A9&scheme=http"
    Path(uri).mkdir(parents=True)
    asked = []
    monkeypatch.setattr(fitted, "_finished", lambda store, key, name: asked.append((store, key)))
    fitted.find(uri, None, "store")
    ((store, key),) = asked
    assert str(store) == "s3://bucket/store" and key == FIT


def test_a_folder_with_a_number_sign_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a#b", "fit", FIT).mkdir(parents=True)
    assert fitted.find(f"a#b/fit/{FIT}", None, "store") == Path("a#b", "fit", FIT)
