"""Count violations of the rules for ``chexseg/``; run as ``python -m tests.house``.

CONTRIBUTING.md lists the rules.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "chexseg"
#: Names that don't say what a value is.
VAGUE = {"found", "told", "said", "mine", "about", "known", "own", "every", "held", "there"}
RELATIVE = re.compile(r"(What|Whether|That|Where|Which|Who|How|Of)\b")
MOST_VAGUE, LONGEST_LINE, LONGEST_MODULE, MOST_MODULES = 10, 100, 350, 14


def vague_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of each variable, parameter and attribute with a vague name."""
    for node in ast.walk(tree):
        names = {
            ast.Name: lambda node: node.id if isinstance(node.ctx, ast.Store) else None,
            ast.Attribute: lambda node: node.attr if isinstance(node.ctx, ast.Store) else None,
            ast.arg: lambda node: node.arg,
        }.get(type(node), lambda node: None)(node)
        if names in VAGUE:
            yield node.lineno, names


def relative_docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, first line) of each docstring that begins with a relative or a genitive word."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring and RELATIVE.match(docstring):
                yield getattr(node, "lineno", 1), docstring.splitlines()[0]


def long_lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each line of more than 100 characters."""
    for number, line in enumerate(source.splitlines(), start=1):
        if len(line) > LONGEST_LINE:
            yield number, line


def imports(tree: ast.AST, modules: set[str]) -> set[str]:
    """Return the package's modules that a module imports, also in functions and for typing."""
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                imported.add(name if name in modules else node.module)
        elif isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
    return imported & modules


def statements(tree: ast.AST) -> int:
    """Return the number of statements, nested ones included."""
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree))


def violations() -> dict[str, list[str]]:
    """Return rule -> one line for each violation in the package."""
    report: dict[str, list[str]] = {
        "vague names": [],
        "relative docstrings": [],
        "long lines": [],
        "long modules": [],
        "large packages": [],
        "mutual imports": [],
    }
    files = sorted(PACKAGE.rglob("*.py"))
    names = {
        path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files
    }
    names = {path: name.removesuffix(".__init__") for path, name in names.items()}
    imported: dict[str, set[str]] = {}
    for path in files:
        source = path.read_text()
        tree, place = ast.parse(source), path.relative_to(PACKAGE.parent)
        imported[names[path]] = imports(tree, set(names.values()))
        for rule, lines in (
            ("vague names", vague_names(tree)),
            ("relative docstrings", relative_docstrings(tree)),
            ("long lines", long_lines(source)),
        ):
            report[rule] += [f"{place}:{line}: {text}" for line, text in lines]
        if (count := len(source.splitlines())) > LONGEST_MODULE:
            report["long modules"].append(f"{place}: {count} lines")
    packages = Counter(path.parent for path in files if path.name != "__init__.py")
    report["large packages"] = [
        f"{path.relative_to(PACKAGE.parent)}: {count} modules"
        for path, count in packages.items()
        if count > MOST_MODULES
    ]
    report["mutual imports"] = [
        f"{one} and {other}"
        for one, others in imported.items()
        for other in others
        if one < other and one in imported[other]
    ]
    return report


if __name__ == "__main__":
    for rule, lines in violations().items():
        print(f"{rule}: {len(lines)}", *lines, sep="\n  ")
    print(
        "statements:",
        sum(statements(ast.parse(path.read_text())) for path in PACKAGE.rglob("*.py")),
    )
