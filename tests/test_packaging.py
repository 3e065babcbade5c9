"""What is installed is what is here."""

from pathlib import Path

import pytest

import optapi


ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "pyproject.toml"
if not PROJECT.exists():
    pytest.skip("the project file is not here", allow_module_level=True)


def test_all_folders_are_packages():
    """Else they would not be installed."""
    folder = Path(optapi.__file__).parent
    assert all((path.parent / "__init__.py").exists() for path in folder.rglob("*.py"))


def test_all_notebooks_have_a_script_and_a_place_in_the_pages():
    notebooks = {path.stem for path in ROOT.glob("examples/*.ipynb")}
    scripts = {path.stem for path in ROOT.glob("examples/*.py") if "jupytext:" in path.read_text()[:400]}
    assert notebooks == scripts and len(notebooks) >= 8
    listed = (ROOT / "docs" / "examples.md").read_text()
    assert all(f"\nexamples/{name}\n" in listed for name in notebooks)
