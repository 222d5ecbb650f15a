"""How modules hang together: no circles, and each file name is written down once."""

import ast
import graphlib
import pathlib

from pipeline import file_names

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROOMS = ("pipeline", "models", "trainer", "export")


def modules():
    """The syntax tree of each module by its dotted name."""
    found = {}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree, known):
    """The modules among `known` that a module imports, at its top or within a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            # Of a package its modules are imported, of a module its names.
            candidates = [name if name in known else node.module for name in inner]
        else:
            continue
        yield from (name for name in candidates if name in known)


def test_no_module_imports_itself_by_way_of_others():
    found = modules()
    graph = {name: set(imported(tree, found)) for name, tree in found.items()}
    assert graph["export.separation.loading"] >= {"export.outlets.formats"}
    graphlib.TopologicalSorter(graph).prepare()  # Raises CycleError, which names the circle.


def test_each_file_name_is_written_down_once():
    names = {
        value
        for key, value in vars(file_names).items()
        # Ordinary words, too, are names of files.
        if key.isupper() and value != file_names.SAVED_VARIABLES
    }
    assert {"best.keras", "log.csv", "voices_apart.json", "saved_model.pb"} <= names
    places = {
        (name, node.value)
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert places == {("pipeline.file_names", name) for name in names}
