"""The documentation agrees with the program."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_the_page_of_the_record_is_the_schema():
    page = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
    held = page.split("<!-- made by python -m pipeline.schema -->\n")[1].split("<!-- end -->")[0]
    made = subprocess.run(
        [sys.executable, "-m", "pipeline.schema"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    assert held == made


def test_rooms_do_not_pull_in_each_others_libraries():
    """Importing one room must not import Beam; schema and features import no framework at all."""
    forbidden = {
        "pipeline.schema": {"apache_beam", "tensorflow", "keras", "scipy", "absl"},
        "pipeline.features": {"apache_beam", "tensorflow", "keras"},
        "pipeline.dataset.dataset": {"apache_beam", "tensorflow", "keras"},
        "models.registry": {"apache_beam"},
        "trainer.config": {"apache_beam", "tensorflow", "keras"},
    }
    for module, libraries in forbidden.items():
        code = f"import {module}, sys; print(' '.join(sys.modules))"
        loaded = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
        assert not libraries & set(loaded), module


def test_the_data_goes_one_way():
    """No room imports a later one."""
    rooms = ["pipeline", "models", "trainer", "export"]
    for place, room in enumerate(rooms):
        for path in (ROOT / room).rglob("*.py"):
            lines = path.read_text(encoding="utf-8").splitlines()
            imports = [
                line.split()[1]
                for line in lines
                if line.lstrip().startswith(("import ", "from ")) and len(line.split()) > 1
            ]
            later = [name for name in imports if name.split(".")[0] in rooms[place + 1 :]]
            assert not later, f"{path} imports {later}"
