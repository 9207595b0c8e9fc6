"""Test the files around the package: dependencies, lock files, linters, citation, changelog."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import chexseg

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CORE = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
BUILD = PYPROJECT["build-system"]["requires"]
LOCKS = ("requirements.lock", "requirements-test.lock")
TOP_LEVEL = {
    *("chexseg", "studies", "tests", "benchmarks", "docs", "monitoring"),
    *("cluster.yaml", "pyproject.toml", "mkdocs.yml", "Dockerfile", "Makefile", *LOCKS),
    *("README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE"),
    *(".ci", ".dockerignore", ".gitignore", ".pre-commit-config.yaml"),
}


def names(requirements: Iterable[str]) -> set[str]:
    """Return the distributions that are required, without chexseg's own extras."""
    return {canonicalize_name(Requirement(text).name) for text in requirements} - {"chexseg"}


def pins(lock: str) -> dict[str, list[tuple[str, Requirement]]]:
    """Return distribution -> (line of the lock file, requirement) of each of its versions."""
    versions: dict[str, list[tuple[str, Requirement]]] = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", (ROOT / lock).read_text()):
        if not entry.startswith("#"):
            requirement = Requirement(entry.splitlines()[0].removesuffix("\\"))
            versions.setdefault(canonicalize_name(requirement.name), []).append(
                (entry, requirement)
            )
    return versions


def imported() -> set[str]:
    """Return the distributions from which a module of chexseg imports something."""
    modules = set()
    for path in (ROOT / "chexseg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module)
    packages = {module.partition(".")[0] for module in modules}
    distributions = packages_distributions()
    return {
        canonicalize_name(distributions[package][0])
        for package in packages - set(sys.stdlib_module_names) - {"chexseg"}
    }


def test_the_package_imports_each_dependency_and_no_other():
    distributions = imported()
    assert names(CORE) - distributions == set()
    extras = [EXTRAS[name] for name in ("images", "dicom", "mlflow", "wandb")]
    assert distributions - names(CORE) == names(sum(extras, []))


def test_the_page_on_dependencies_has_a_row_for_each():
    text = (ROOT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| (?:`[\w-]+` \| )?`([\w\[\],-]+)` \|", text, re.MULTILINE)
    declared = [Requirement(text) for text in CORE + sum(EXTRAS.values(), [])]
    assert {str(Requirement(row)) for row in rows} == {
        str(Requirement(f"{one.name}[{','.join(one.extras)}]" if one.extras else one.name))
        for one in declared
        if one.name != "chexseg"
    }


@pytest.mark.parametrize(
    ("lock", "required"),
    [(LOCKS[0], CORE + BUILD), (LOCKS[1], CORE + BUILD + sum(EXTRAS.values(), []))],
)
def test_a_lock_file_has_a_fitting_version_of_each_dependency(lock, required):
    locked = pins(lock)
    for requirement in map(Requirement, required):
        if requirement.name == "chexseg":
            continue
        for _, pin in locked[canonicalize_name(requirement.name)]:
            (version,) = pin.specifier
            assert version.operator == "=="
            assert requirement.specifier.contains(version.version), (str(requirement), str(pin))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_has_hashes_and_no_addresses(lock):
    for entries in pins(lock).values():
        for entry, _ in entries:
            assert "--hash=sha256:" in entry, entry
    assert not re.search(r"https?:|file:|^-", (ROOT / lock).read_text(), re.MULTILINE)


def test_both_lock_files_have_the_same_versions():
    # Not the markers: a package for one system alone may be needed on all by a tool.
    versions = [
        {name: {str(pin.specifier) for _, pin in entries} for name, entries in pins(lock).items()}
        for lock in LOCKS
    ]
    assert {name: versions[1].get(name) for name in versions[0]} == versions[0]


def test_all_files_of_the_package_are_installed():
    package = ROOT / "chexseg"
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["chexseg"]
    installed = {path for pattern in patterns for path in package.glob(pattern)}
    ignored = {".py", ".pyc"}
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix not in ignored}
    assert files - installed == set()


def test_the_top_level_has_nothing_that_was_committed_by_mistake():
    git = ["git", "-C", str(ROOT), "ls-files"]
    listed = subprocess.run(git, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    assert {path.partition("/")[0] for path in listed.stdout.splitlines()} <= TOP_LEVEL


def test_the_linters_before_a_commit_are_those_of_make_lint():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    commands = re.findall(r"\$\(VENV\)/bin/(.*?)(?: \.)?$", recipe[1], re.MULTILINE)
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (local,) = config["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    assert [hook["entry"].removesuffix(" --force-exclude") for hook in local["hooks"]] == [
        f".venv/bin/{command}" for command in commands
    ]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "Makefile"])
def test_the_make_commands_of_a_page_exist(page):
    targets = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = re.findall(r"(?:^|`|# |\()make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE)
    assert set(commands) >= {"setup", "test-fast", "test", "test-all", "lint", "lock"}
    assert set(commands) <= targets


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == chexseg.__version__
    assert [{"name": author["name"]} for author in citation["authors"]] == (
        PYPROJECT["project"]["authors"]
    )
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert {"cff-version", "message", "title"} <= set(citation)


def test_the_changelog_begins_with_what_is_unreleased_and_has_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (\S+)", text, re.MULTILINE)
    assert headings[0] == "Unreleased"
    unreleased = text.split("\n## ")[1]
    assert chexseg.__version__ in headings[1:] or chexseg.__version__ in unreleased
