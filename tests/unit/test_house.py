"""The house keeps its shape: every module has a layer, no import circles, names say what they hold."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WHEEL = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
LAYERED = [name for name in WHEEL if name != "migrations"]  # which stand on nothing but Alembic
GRAMMAR_SHARE = 0.015
# Words that say how a thing came, or which of several it is, and not what it holds. Terms are "any", "all" (builtins),
# "where" (the filter) and "left" (a side of a box).
GRAMMAR = """
one ones other others another some none every each found made kept told asked held gone done here there alike such same
much many few more most less least given taken wanted needed known seen shown said late early again already still yet
only just both either neither how why when what which who that this those these it its them they so then than too very
well anything nothing something everything whatever wherever
"""
GRAMMAR_WORDS = frozenset(GRAMMAR.split())


def files() -> list[Path]:
    return [file for package in WHEEL for file in sorted((ROOT / package).rglob("*.py"))]


def assigned_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg) and node.arg not in ("self", "cls"):
            yield node.arg


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*LAYERED, exclude_type_checking_imports=True, cache_dir=None)


def test_every_module_belongs_to_a_layer(graph: grimp.ImportGraph) -> None:
    (house,) = [c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if c["name"].startswith("The house")]
    layers = {module.strip() for layer in house["layers"] for module in layer.split("|")}
    roofs = {"coarseloc", "search"}  # packages whose own files are layers each
    strays = [
        module
        for module in graph.modules
        if module not in roofs and not any(module == layer or module.startswith(f"{layer}.") for layer in layers)
    ]
    assert strays == [], "add them to the layers in pyproject.toml"


def test_no_modules_import_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    for module in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            chain = graph.find_shortest_chain(importer=imported, imported=module)
            assert chain is None, " > ".join([module, *(chain or ())])


def test_names_say_what_they_hold() -> None:
    names = [name for file in files() for name in assigned_names(ast.parse(file.read_text(encoding="utf-8")))]
    grammar = Counter(name for name in names if name.strip("_").lower() in GRAMMAR_WORDS)
    assert grammar.total() <= GRAMMAR_SHARE * len(names), grammar.most_common(10)


def test_no_two_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for file in files():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}
