"""The gallery of the notebooks: a card for each, with its first picture, its first sentence and its program."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path


FOLDER = Path(__file__).parent
# Where the pictures and programs are written, from where Sphinx takes them.
PICTURES = FOLDER / "_build" / "gallery"
# In the source of the page, alone on its line.
GALLERY = "<!-- gallery -->"


def listed() -> list[str]:
    """The names of the notebooks, in the order of the page."""
    return re.findall(r"^examples/(\w+)$", (FOLDER / "examples.md").read_text(), flags=re.MULTILINE)


def cells(name: str) -> list[dict]:
    return json.loads((FOLDER / "examples" / f"{name}.ipynb").read_text())["cells"]


def pictures() -> Path:
    """Write the first picture of each notebook, and its program, and return the folder."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in listed():
        found = (
            o["data"]["image/png"]
            for c in cells(name)
            for o in c.get("outputs", ())
            if "image/png" in o.get("data", {})
        )
        (PICTURES / f"{name}.png").write_bytes(base64.b64decode(next(found)))
        (PICTURES / f"{name}.py").write_text((FOLDER / "examples" / f"{name}.py").read_text())
    return PICTURES


def filled(source: str) -> str:
    """`source`, with the cards in their place."""
    cards = []
    for name in listed() if GALLERY in source else ():
        title, paragraph = re.match(
            r"# ([^\n]+)\n\n(.+?)(?:\n\n|$)", "".join(cells(name)[0]["source"]), re.DOTALL
        ).groups()
        sentence = re.split(r"(?<=[.:])\s", paragraph.replace("\n", " "))[0].rstrip(":,")
        sentence = html.escape(re.sub(r"[`*]", "", sentence).rstrip(".") + ".")
        picture = f'<img src="_static/{name}.png" alt="" loading="lazy">'
        text = f"<b>{html.escape(title)}</b><span>{sentence}</span>"
        page = f'<a href="examples/{name}.html">{picture}{text}</a>'
        cards.append(f'<div class="card">{page}<a class="program" href="_static/{name}.py">{name}.py</a></div>')
    block = '```{raw} html\n<div class="cards">\n' + "\n".join(cards) + "\n</div>\n```"
    return source.replace(GALLERY, block)
