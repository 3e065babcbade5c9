"""Looks for what is wrong with the site that was built: ``python docs/check.py FOLDER``.

Formulas that were not rendered, links to what is not there, anything that is loaded from elsewhere, pages from which no
link leads back, and styles without which wide code, tables and formulas would be cut.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag


# Text of these is not read as prose.
VERBATIM = {"pre", "code", "script", "style", "title"}
TEX = re.compile(r"\\[a-zA-Z]{2,}|\$[^$\s][^$]*\$|\\[()\[\]{}]")
# What a page loads, by tag.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
# What wide things need so that nothing is cut.
STYLES = {
    "table": r"table\s*{[^}]*overflow-x:\s*auto",
    "formulas": r"div\.math\s*{[^}]*overflow-x:\s*auto",
    "blocks of code": r"div\.highlight pre\s*{[^}]*white-space:\s*pre-wrap",
    "code": r"\.pre\s*{[^}]*white-space:\s*normal",
    "signatures": r"dt\.sig[^{]*{[^}]*overflow-wrap:\s*anywhere",
}


class Page(HTMLParser):
    """What a page loads, links to and says."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.prose: list[str] = []
        self.in_formulas: list[str] = []
        self._open: list[str] = []
        self._formulas = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        self._formulas += tag == "math"
        if tag in VERBATIM:
            self._open.append(tag)
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in LOADED and given.get(LOADED[tag]) and given.get("rel") not in ("canonical", "author"):
            self.loaded.append(given[LOADED[tag]])

    def handle_endtag(self, tag):
        self._formulas -= tag == "math"
        if tag in self._open:
            del self._open[len(self._open) - 1 - self._open[::-1].index(tag) :]

    def handle_data(self, data):
        if self._formulas:
            self.in_formulas.append(data)
        elif not self._open:
            self.prose.append(data)


def faults(folder: Path) -> list[str]:
    """A line for each thing that is wrong."""
    paths = [path.resolve() for path in folder.rglob("*.html") if "_static" not in path.parts]
    pages = {path: Page(path.read_text()) for path in paths}
    found = []
    for path, page in pages.items():
        name = path.relative_to(folder.resolve())
        found += [f"{name}: loads {link}" for link in page.loaded if re.match(r"(https?:)?//", link)]
        found += [f"{name}: a formula is raw: {tex}" for text in page.prose for tex in TEX.findall(text)]
        # What the converter did not know stands in the formula as it was written.
        found += [f"{name}: a formula has raw parts: {text}" for text in page.in_formulas if re.search(r"\\|&", text)]
        inside = {urldefrag(link) for link in page.links if link != "#" and not re.match(r"\w+:|//", link)}
        for url, anchor in inside:
            target = (path.parent / unquote(url)).resolve() if url else path
            if not target.exists():
                found.append(f"{name}: {url} is not there")
            # Back from the source of what is shown under another name, to the page at least.
            elif anchor and "_modules" not in path.parts and unquote(anchor) not in pages[target].ids:
                found.append(f"{name}: {url}#{anchor} is not there")
        for link in page.loaded:
            file = path.parent / unquote(link.partition("?")[0])
            if link != "#" and not re.match(r"\w+:|//", link) and not file.exists():
                found.append(f"{name}: {link} is not there")
        home = folder.resolve() / "index.html"
        if path != home and not any((path.parent / unquote(url)).resolve() == home for url, _ in inside if url):
            found.append(f"{name}: no link leads to the start page")
    styles = "\n".join(path.read_text() for path in folder.rglob("optapi.css"))
    found += [f"optapi.css: {what} may be cut" for what, style in STYLES.items() if not re.search(style, styles)]
    return found


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]))
    print(*wrong, sep="\n", end="\n" if wrong else "")  # noqa: T201
    sys.exit(bool(wrong))
