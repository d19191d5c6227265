"""Reads what every module of the project imports, without importing any."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("hrbp_core", "bench", "reports")


@dataclass(frozen=True)
class Import:
    """One import: the module it names, and whether loading the file runs it."""

    target: str
    at_load: bool


class Reader(ast.NodeVisitor):
    """Collects the imports of one file: in functions, under TYPE_CHECKING, and by name too."""

    def __init__(self, name: str, is_package: bool, known: frozenset[str]) -> None:
        self.package = name if is_package else name.rpartition(".")[0]
        self.known, self.at_load = known, True
        self.found: list[Import] = []

    def add(self, target: str) -> None:
        self.found.append(Import(target, self.at_load))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            above = self.package.split(".")[: len(self.package.split(".")) - node.level + 1]
            base = ".".join([*above, *([base] if base else [])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            self.add(full if full in self.known else base)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        first = node.args[0] if node.args else None
        if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
            self.add(str(first.value))
        self.generic_visit(node)

    def later(self, node: ast.AST) -> None:
        before, self.at_load = self.at_load, False
        self.generic_visit(node)
        self.at_load = before

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = later

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.dump(node.test):
            self.later(ast.Module(node.body, []))
            for other in node.orelse:
                self.visit(other)
        else:
            self.generic_visit(node)


Imports = dict[str, list[Import]]


def sources() -> dict[str, str]:
    """Return module name -> source of every file of the three packages."""
    found = {}
    for path in (p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts)] = path.read_text(encoding="utf-8")
    return found


def read(files: dict[str, str]) -> Imports:
    """Return module name -> its imports; a package's ``.__init__`` is the package itself."""
    known = frozenset(name.removesuffix(".__init__") for name in files)
    return {file.removesuffix(".__init__"): read_one(file, files[file], known) for file in files}


@cache
def read_one(file: str, source: str, known: frozenset[str]) -> list[Import]:
    reader = Reader(file.removesuffix(".__init__"), file.endswith(".__init__"), known)
    reader.visit(ast.parse(source))
    return reader.found


def loaded_by(name: str, imports: Imports) -> set[str]:
    """Return all that loading a module loads, by its own imports and its packages' ones."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        each = waiting.pop()
        parts = each.split(".")
        for one in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):
            if one not in seen:
                seen.add(one)
                waiting += [i.target for i in imports.get(one, []) if i.at_load]
    return seen
