"""Properties of names: URIs, image ids, manifests and the paths in them, records of a journal."""

from __future__ import annotations

import json
import os
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from chexseg.data.masks import image_ids
from chexseg.errors import UserError
from chexseg.predict import image_files
from chexseg.search import journal_lines
from chexseg.store import manifest, uris
from tests.properties.documents import json_values, one_line
from tests.store.test_manifest import document

paths = st.text(st.sampled_from("ab./\\ \n\0"), max_size=12)
parts = st.text(st.sampled_from("ab:@/[]%&=. \u00e9"), max_size=15)
#: Without a region pyarrow would ask Amazon for the bucket's.
REGION = "?region=nowhere"
SECRET = "hunter2"


@given(
    st.sampled_from(["s3", "gs", "file", "mock", "", "x"]), st.sampled_from(["://", ":/"]), parts
)
def test_a_uri_is_a_place_or_one_line(scheme, colon, rest):
    try:
        place = uris.parse(f"{scheme}{colon}{rest}{REGION}")
        if isinstance(place, str):
            assert uris.connect(place, "--store").path.strip("/")
    except UserError as error:
        assert one_line(error)


@given(parts)
def test_no_message_has_the_credentials_of_a_uri(rest):
    try:
        title = uris.connect(f"s3://user:{SECRET}@bucket{rest}{REGION}", "--store").title
    except UserError as error:
        title = str(error)
    assert SECRET not in title


@given(paths)
def test_a_path_inside_a_result_stays_there(name):
    if manifest.is_inside(name):
        assert os.path.normpath(f"/result/{name}") == f"/result/{name}"
        assert PurePosixPath(name).as_posix() == name and name.isprintable()


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=3))
def test_a_sealed_document_survives_and_any_change_is_noticed(facts):
    sealed = json.loads(json.dumps(manifest.seal(document(facts=facts))))
    assert manifest.is_sealed(sealed)
    assert not manifest.is_sealed(sealed | {"facts": {**facts, "one more": 1}})


@given(st.one_of(json_values, st.dictionaries(st.sampled_from([*document()]), json_values)))
def test_any_document_is_a_manifest_or_one_line(changes):
    whole = document() | changes if isinstance(changes, dict) else changes
    try:
        parsed = manifest.parse(json.dumps(whole).encode(), "manifest.json")
    except UserError as error:
        assert one_line(error, "manifest.json: ")
    else:
        assert set(document()) <= set(parsed)
        assert all(manifest.is_inside(name) for name in parsed["files"])


@given(st.binary())
def test_any_bytes_are_a_manifest_or_one_line(content):
    try:
        manifest.parse(content, "manifest.json")
    except UserError as error:
        assert one_line(error, "manifest.json: ")


@given(st.sets(st.text(st.sampled_from("ab/._"), min_size=1, max_size=8).map("/d/".__add__)))
def test_image_ids_are_unique(files):
    files = {os.path.normpath(file) for file in files} - {"/d", "/"}
    try:
        ids = image_files.image_ids(files)
    except UserError as error:
        assert one_line(error)
    else:
        assert ids.keys() == files and len(set(ids.values())) == len(files)


ids = st.text(st.sampled_from("ab"), min_size=1, max_size=2)
with_suffix = st.tuples(ids, st.sampled_from(["", ".jpg", ".PNG", ".dcm"])).map("".join)


@given(st.lists(with_suffix, max_size=4), st.lists(with_suffix, max_size=4))
def test_matching_loses_no_id(truth, predicted):
    try:
        matching = image_ids.match(truth, predicted, "gt.json", "pred.json")
    except UserError as error:
        assert one_line(error)
        return
    matched = {matching.renamed.get(name, name) for name in predicted} - {*matching.unknown}
    assert matched | {*matching.missing} == set(truth)
    assert not matched & {*matching.missing}
    assert {image_ids.without_suffix(new) for new in matching.renamed.values()} == {
        image_ids.without_suffix(old) for old in matching.renamed
    }


records = st.builds(
    lambda code, values: {"op_code": code, "worker_id": "w", **values},
    st.sampled_from(journal_lines.OPERATIONS),
    st.dictionaries(st.sampled_from(["user_attr", "values", "study_name"]), json_values),
)


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_every_complete_record_of_a_torn_journal_counts(written, data):
    def readable(record: dict[str, object]) -> bool:
        return journal_lines.parse(journal_lines.encode_records([record]))[1] == []

    written = [record for record in written if readable(record)]  # without the largest integers
    lines = journal_lines.encode_records(written).splitlines(keepends=True)
    parsed, torn = journal_lines.parse(b"".join(lines))
    assert repr(parsed) == repr([json.loads(line) for line in lines]) and not torn
    if not lines:
        return
    number = data.draw(st.integers(0, len(lines) - 1))
    cut = data.draw(st.integers(1, len(lines[number]) - 2))
    lines[number] = lines[number][:cut]  # as a full disk does; the next line follows at once
    parsed, torn = journal_lines.parse(b"".join(lines))
    assert repr(parsed) == repr([json.loads(line) for n, line in enumerate(lines) if n != number])
    assert len(torn) == 1
