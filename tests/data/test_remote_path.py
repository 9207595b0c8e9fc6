"""Test a data set on S3: same tables, faults and fingerprints; one error line if unreachable."""

from __future__ import annotations

import pickle
import shutil
import sys
import threading
from pathlib import Path

import pytest
from moto.core import enable_iam_authentication

from chexseg import cli
from chexseg.data import chexlocalize, chexpert, images, remote_path
from chexseg.data.audit import validation
from chexseg.data.raw_split import RawData
from chexseg.errors import UserError
from chexseg.phantom import dataset
from chexseg.plan import cost, planner
from chexseg.store import uris


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Return a data set of 13 images: moto answers about ten requests a second."""
    root = tmp_path_factory.mktemp("small") / "data"
    dataset.write(root, dataset.Config(train=6, valid=4, test=3, size=64))
    return root


@pytest.fixture(scope="module")
def remote(root, uploaded) -> remote_path.RemotePath:
    return uploaded(root, "small")


@pytest.fixture
def copy(root, tmp_path) -> Path:
    return shutil.copytree(root, tmp_path / "data")


def test_a_uri_is_a_remote_path_and_all_else_a_directory(remote, tmp_path):
    assert remote_path.at(str(tmp_path)) == remote_path.at(f"file://{tmp_path}") == tmp_path
    assert isinstance(remote_path.at(remote.uri), remote_path.RemotePath)
    with pytest.raises(UserError, match="^data root s3://: found no bucket"):
        remote_path.at("s3://any:secret@")
    with pytest.raises(
        UserError,
        match="^data root ftp://host/x: .*; expected: a directory, or a URI such as "
        "s3://bucket/prefix",
    ):
        remote_path.at("ftp://host/x")


@pytest.mark.parametrize(
    "uri",
    [
        "file:/tmp/x/a b",
        "file:///tmp/x/a%20b",
        Path("file:///tmp/x/a%20b"),
        "file://localhost/tmp/x/a%20b",
    ],
)
def test_a_uri_of_this_machine_is_a_directory(uri):
    assert uris.parse(uri) == Path("/tmp/x/a b")


@pytest.mark.parametrize("uri", ["file://store/x", "file://", "file:///", "file://[/x"])
def test_a_uri_of_another_machine_or_of_nothing_is_refused(uri):
    with pytest.raises(UserError, match="expected: file:///directory"):
        uris.parse(uri)


def test_a_remote_path_names_and_reads_files_as_a_directory_does(remote, root):
    for name in (chexlocalize.FILES["valid"], "CheXpert-v1.0-small/train.csv"):
        assert (remote / name).read_bytes() == (root / name).read_bytes()
        assert (remote / name).is_file() and not (remote / name).is_dir()
        assert (remote / name).name == Path(name).name
    assert str(remote / "CheXlocalize" / "none.json") == "s3://bucket/small/CheXlocalize/none.json"
    assert (
        remote.is_dir()
        and (remote / "CheXlocalize").is_dir()
        and not (remote / "CheXlocalize").is_file()
    )
    assert not (remote / "none").is_dir() and not (remote / "none").is_file()
    with pytest.raises(FileNotFoundError) as caught:
        (remote / "none").read_bytes()
    assert caught.value.filename == "s3://bucket/small/none"
    again = pickle.loads(pickle.dumps(remote / "CheXlocalize"))
    assert again == remote / "CheXlocalize" and again.is_dir()
    assert "secret" not in f"{remote} {remote!r}"


@pytest.mark.parametrize("split", chexpert.SPLITS)
def test_tables_are_the_same_but_for_where_the_images_lie(remote, root, split):
    table, remote_table = chexpert.read(root, split), chexpert.read(remote, split)
    assert (
        remote_table["path"].str.replace(str(remote), str(root)).tolist() == table["path"].tolist()
    )
    assert remote_table.drop(columns="path").equals(table.drop(columns="path"))
    first = next(remote_path.files(remote, remote_table["path"]))
    assert (images.decode(first) == images.decode(table["path"][0])).all()


def test_fingerprints_and_counts_are_the_same_and_no_image_is_asked_for_by_itself(s3, remote, root):
    s3.requests()
    assert planner.fingerprints(remote) == planner.fingerprints(root)
    lines = s3.requests()
    assert not any(".jpg" in line for line in lines) and len(lines) < 50
    assert cost.images(RawData(remote)) == cost.images(RawData(root))


def test_an_image_that_changes_or_goes_changes_the_fingerprint_as_in_a_directory(copy, uploaded):
    before = planner.fingerprints(copy)
    first, second = (Path(path) for path in chexpert.read(copy, "valid")["path"][:2])
    first.unlink()
    second.write_bytes(second.read_bytes() + b"\0")
    fingerprints, remote_fingerprints = (
        planner.fingerprints(copy),
        planner.fingerprints(uploaded(copy, "changed")),
    )
    assert (
        fingerprints == remote_fingerprints
        and fingerprints["train"] == before["train"]
        and fingerprints["valid"] != before["valid"]
    )


def test_the_audit_says_the_same_of_a_sound_set_and_of_a_broken_one(remote, root, copy, uploaded):
    assert validation.check(remote).text() == validation.check(root).text().replace(
        str(root), str(remote)
    )
    first, second = (Path(path) for path in chexpert.read(copy, "valid")["path"][:2])
    first.unlink()
    second.write_bytes(second.read_bytes()[:300])
    (copy / chexlocalize.FILES["test"]).unlink()
    (copy / chexlocalize.FILES["radiologists"]).unlink()
    broken = uploaded(copy, "broken")
    faults, remote_faults = validation.check(copy).faults, validation.check(broken).faults
    assert (
        set(remote_faults) == set(faults) == {"missing image", "unreadable image", "missing file"}
    )
    for kind in faults:
        assert [message.replace(str(copy), str(broken)) for message in faults[kind]] == list(
            remote_faults[kind]
        )


def test_files_are_read_ahead_in_order_and_only_so_many(remote):
    paths = chexpert.read(remote, "train")["path"].tolist() * 5
    asked = []

    def watched():
        for file in remote_path.files(remote, paths):
            asked.append(file)
            yield file

    ahead = remote_path.prefetch(watched())
    assert str(next(ahead)) == paths[0]
    assert len(asked) == remote_path.CONCURRENT_READS + 1 < len(paths)
    contents = [(str(file), file.read_bytes()) for file in ahead]
    assert [path for path, _ in contents] == paths[1:]
    assert contents[0][1] == (remote / paths[1].removeprefix(f"{remote}/")).read_bytes()


def test_files_are_read_at_once(monkeypatch, remote):
    together = threading.Barrier(remote_path.CONCURRENT_READS)

    def read(self) -> bytes:
        together.wait(timeout=30)  # breaks unless that many requests are concurrent
        return b""

    monkeypatch.setattr(remote_path.RemotePath, "read_bytes", read)
    read_all = [
        file.read_bytes()
        for file in remote_path.prefetch(
            remote / str(number) for number in range(2 * remote_path.CONCURRENT_READS)
        )
    ]
    assert read_all == [b""] * len(read_all)


def test_a_local_file_is_handed_on_as_it_is(tmp_path):
    paths = [tmp_path / str(number) for number in range(3)]
    assert list(remote_path.prefetch(paths)) == paths


@pytest.fixture
def refused_by_command(monkeypatch, capsys):
    """Run a command; return its one error line, without the URI's secrets."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["chexseg", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        assert caught.value.code == 2 and output.out == ""
        assert (
            output.err.count("\n") == 1
            and "secret" not in output.err
            and "endpoint" not in output.err
        )
        return output.err

    return run


PLAN = ("study", "plan", "studies/demo.yaml", "--store", "none", "--data")


@pytest.mark.parametrize("command", [PLAN, ("data", "check")])
def test_a_bucket_or_prefix_that_is_not_there_is_one_line(s3, refused_by_command, command):
    nowhere = s3("").replace("@bucket/", "@nowhere/data")
    assert refused_by_command(*command, nowhere) == (
        "chexseg: data root s3://nowhere/data: no such bucket or prefix;"
        " expected a directory or prefix that contains CheXpert and CheXlocalize\n"
    )
    assert "s3://bucket/none: no such bucket or prefix" in refused_by_command(*command, s3("none"))


@pytest.mark.parametrize("command", [PLAN, ("data", "check")])
def test_missing_permission_is_one_line(remote, refused_by_command, command):
    with enable_iam_authentication():
        message = refused_by_command(*command, remote.uri)
    assert (
        message.startswith("chexseg: s3://bucket/small: cannot be read (When ")
        and "ACCESS_DENIED" in message
    )


@pytest.mark.heavy  # waits for the client's retries
def test_a_server_that_is_not_there_is_one_line(refused_by_command):
    message = refused_by_command(
        *PLAN, "s3://any:secret@bucket/x?endpoint_override=127.0.0.1%3A9&scheme=http"
    )
    assert message.startswith("chexseg: s3://bucket/x: cannot be read (")


def test_a_missing_file_is_one_line(refused_by_command, copy, uploaded):
    (copy / chexlocalize.FILES["valid"]).unlink()
    message = refused_by_command(*PLAN, uploaded(copy, "without-masks").uri)
    assert (
        "s3://bucket/without-masks/CheXlocalize/gt_segmentations_val.json: cannot be read (No "
        "such file" in message
    )
