"""Who imports whom: rooms and folders only what is below them, and nobody in a circle.

What a folder may import is said by the sentence in its `__init__` that begins with "Imports". It
names folders, rooms and modules: its own room stands for the modules at the top of it, another room
for all that is in it.
"""

import ast
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ("pipeline", "models", "trainer", "export")


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {dotted(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}
FOLDERS = [name for name, path in FILES.items() if path.name == "__init__.py" and name not in ROOMS]


def folder_of(module):
    return module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]


def imported(path):
    """The modules of our rooms that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in FILES else node.module)
    return found & FILES.keys()


GRAPH = {name: imported(path) - {name} for name, path in FILES.items()}


def allowed(folder):
    text = " ".join(ast.get_docstring(ast.parse(FILES[folder].read_text())).split())
    sentence = re.search(r"Imports ([^;]*?)(?:[.;]|, but)(?: |$)", text)
    assert sentence, f"{folder}/__init__.py does not say what it imports"
    return re.findall(r"`([\w.]+)`", sentence[1])


def may(folder, module, names):
    own = folder.partition(".")[0]
    return folder_of(module) == folder or any(
        name in (module, folder_of(module))
        or (name in ROOMS and name != own and module.partition(".")[0] == name)
        for name in names
    )


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_what_is_before_them(room):
    later = ROOMS[ROOMS.index(room) + 1 :]
    for module, others in GRAPH.items():
        if module.partition(".")[0] == room:
            assert not [name for name in others if name.partition(".")[0] in later], module


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_what_they_say(folder):
    names = allowed(folder)
    used = set()
    for module, others in GRAPH.items():
        if folder_of(module) == folder:
            for other in others:
                assert may(folder, other, names), f"{module} imports {other}"
            used |= others
    # What nobody needs is not named.
    for name in names:
        assert any(may("", other, [name]) for other in used), f"{folder} needs no {name}"


def test_no_folder_is_in_a_circle():
    """The top of a room, whose commands import folders that import its basic modules, aside."""
    graph = {folder: set() for folder in FOLDERS}
    for module, others in GRAPH.items():
        folder = folder_of(module)
        if folder in graph:
            graph[folder] |= {folder_of(other) for other in others} & graph.keys() - {folder}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_no_module_is_in_a_circle():
    assert list(graphlib.TopologicalSorter(GRAPH).static_order())


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_are_small(folder):
    assert len([name for name in FILES if folder_of(name) == folder]) <= 16
