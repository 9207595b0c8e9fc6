"""Test what a user meets first: help, version, examples, environment variables, missing stores."""

from __future__ import annotations

import json
import shlex

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import chexseg as package
from chexseg.cli import app
from chexseg.cli.examples import EXAMPLES
from chexseg.errors import UserError
from tests.docs.test_code_blocks import parse

STUDY = "name: s\naxes: {trial: [0, 1]}\nsettings: {labels: {p: 1}}"


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(STUDY)
    return path


def run(*arguments: object, **environment: str) -> str:
    """Return the standard output of a command; raise its `UserError`."""
    result = CliRunner().invoke(app, list(map(str, arguments)), env=environment)
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_version_is_shown():
    assert run("--version") == f"chexseg {package.__version__}\n"


@pytest.mark.parametrize("words", [(), ("study",), ("study", "run"), ("report",)])
def test_h_is_help(words):
    assert run(*words, "-h") == run(*words, "--help")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_help_of_a_command_has_an_example(name):
    words = " ".join(run(*name.split(), "--help").split())
    for example in EXAMPLES[name]:
        assert example.startswith(f"chexseg {name}") and example in words


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_a_command_that_can_be_parsed(example):
    words = shlex.split(example)
    parse(get_command(app), words)


def test_a_shell_can_complete_commands():
    # As bash asks, once the script of --install-completion is in its start-up files.
    asked = {
        "_CHEXSEG_COMPLETE": "complete_bash",
        "COMP_WORDS": "chexseg study s",
        "COMP_CWORD": "2",
    }
    result = CliRunner().invoke(app, prog_name="chexseg", env=asked)
    assert sorted(result.output.split()) == ["settings", "status"]


def test_data_and_store_may_come_from_the_environment(study, phantom_root, tmp_path):
    variables = {"CHEXSEG_DATA": str(phantom_root), "CHEXSEG_STORE": str(tmp_path / "store")}
    (tmp_path / "store").mkdir()
    assert run("study", "status", study, **variables).startswith("s: 2 missing")
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(UserError, match="elsewhere: no such directory"):
        run("study", "status", study, "--store", elsewhere, **variables)


@pytest.mark.parametrize(
    "words",
    [
        ("study", "status", "STUDY", "--data", "DATA"),
        ("report", "STUDY", "--data", "DATA", "--out", "OUT"),
        ("predict", "STUDY#full trial 0", "IMAGE", "--data", "DATA", "--out", "OUT"),
        ("compare", "STUDY", "STUDY", "--data", "DATA", "--out", "OUT"),
        ("store", "list"),
        ("store", "verify"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_store_that_does_not_exist_is_one_line(words, study, phantom_root, tmp_path):
    from PIL import Image

    Image.new("L", (32, 32)).save(tmp_path / "image.png")
    values = {"STUDY": study, "DATA": phantom_root, "OUT": tmp_path / "out"}
    values["IMAGE"] = tmp_path / "image.png"
    words = [
        word.replace(name, str(value))
        for word in words
        for name, value in [next(((n, v) for n, v in values.items() if n in word), ("", ""))]
    ]
    with pytest.raises(UserError, match=r"--store \S+typo: no such directory; expected: a store"):
        run(*words, "--store", tmp_path / "typo")
    assert not (tmp_path / "typo").exists() and not (tmp_path / "out").exists()


def test_a_report_is_one_json_document_on_request(study, phantom_root, tmp_path):
    (tmp_path / "store").mkdir()
    out = tmp_path / "report"
    text = run(
        "report", study, "--data", phantom_root, "--store", tmp_path / "store", "--out", out,
        "--json",
    )  # fmt: skip
    document = json.loads(text)
    (one,) = document["studies"]
    assert (one["name"], one["answer"], one["cells"]) == ("s", [], [])
    assert [cell["state"] for cell in one["missing"]] == ["missing", "missing"]
    assert document["page"] == str(out / "index.html")
