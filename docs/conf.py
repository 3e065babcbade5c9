"""How Sphinx builds the site: ``make docs``."""

import os
import re
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("MPLBACKEND", "Agg")

import gallery
import latex2mathml.converter
import names
import pytensor
from docutils import nodes
from numpydoc import docscrape_sphinx
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.logging import getLogger

import optapi


# The pictures in docstrings: nothing is compiled for them.
pytensor.config.mode = optapi.PYTHON

project = "optapi"
author = copyright = "the optapi developers"
version = release = optapi.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "matplotlib.sphinxext.plot_directive",
]
exclude_patterns = ["_build", "examples/*.py"]
nitpicky = True
# Single backquotes are code; `NamesAreLinks` makes links of names.
default_role = "literal"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_render_markdown_format = "gfm"

autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_use_plots = True
# The examples that draw import `optapi.plot`, and matplotlib through it.
docscrape_sphinx.IMPORT_MATPLOTLIB_RE = r"\b(import +matplotlib|from +matplotlib +import|import .*\bplot)\b"
plot_include_source = True
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("png", 110)]
plot_rcparams = {"savefig.bbox": "tight", "figure.figsize": (6.4, 4.2)}

# Formulas are MathML, which browsers draw by themselves, so that a page loads nothing from elsewhere.
html_math_renderer = "mathml"
copybutton_prompt_text = ">>> |\\.\\.\\. |\\$ "
copybutton_prompt_is_regexp = True
viewcode_line_numbers = True

html_theme = "pydata_sphinx_theme"
html_title = "optapi"
html_static_path = ["_static", str(gallery.pictures())]
templates_path = ["_templates"]
html_css_files = ["optapi.css"]
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["indices.html"],
    "show_prev_next": True,
    "logo": {"text": "optapi"},
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": [], "tutorial": [], "design": [], "contributing": [], "changelog": [], "problems": []}


class NamesAreLinks(SphinxPostTransform):
    """Makes a link of each piece of code that is a public name, but for the parameters of what is described there."""

    default_priority = 5
    formats = ("html",)

    def run(self, **kwargs):
        objects = self.env.domains["py"].objects
        for literal in list(self.document.findall(nodes.literal)):
            called = re.fullmatch(r"([\w.]+)(\(.*\))?", literal.astext(), flags=re.DOTALL)
            if not called or isinstance(literal.parent, nodes.reference | addnodes.pending_xref):
                continue
            target = self.target(called[1], literal)
            if target in MODULES:
                if MODULES[target] not in (None, self.env.docname):
                    self.link(literal, target, self.app.builder.get_relative_uri(self.env.docname, MODULES[target]))
                continue
            if target not in objects:
                if target in PUBLIC or called[1].startswith("optapi."):
                    logger.warning("the code names %s, which no page documents", called[1], location=literal)
                continue
            found = objects[target]
            page = self.app.builder.get_relative_uri(self.env.docname, found.docname)
            self.link(literal, target, f"{page}#{found.node_id}")

    def link(self, literal, name, uri):
        """Make `literal` a link to what is called `name`."""
        link = nodes.reference("", "", internal=True, refuri=uri, reftitle=name)
        literal.replace_self(link)
        link += literal

    def target(self, name, literal):
        """The whole public name of what is written as `name`, or None if that is something else."""
        if name.startswith("optapi."):
            return name
        whole = SHORT.get(name)
        described = next((node for node in ancestors(literal) if isinstance(node, addnodes.desc)), None)
        if described is None:
            return whole if "." in name or name in PLAIN else None
        signature = described.children[0]
        own = {node.astext().partition("=")[0] for node in signature.findall(addnodes.desc_parameter)}
        return None if name in own or whole in signature["ids"] else whole


def ancestors(node):
    """The nodes that `node` is in, from the inside."""
    while node.parent is not None:
        node = node.parent
        yield node


logger = getLogger("optapi")
PUBLIC = {name: thing for things in names.public().values() for name, thing in things.items()}
SHORT = {name.rsplit(".", 1)[-1]: name for name in PUBLIC} | {name.removeprefix("optapi."): name for name in PUBLIC}
# From each module that is public as such to the page that shows it, if there is one.
MODULES = dict.fromkeys(
    {"optapi.distributed", "optapi.pymc", "optapi.scipy", *(f"optapi.{name}" for name in optapi.__all__)} - set(PUBLIC)
)
MODULES |= {
    f"optapi.{module}": page.relative_to(Path(__file__).parent).with_suffix("").as_posix()
    for module, page in names.documented(Path(__file__).parent).items()
    if f"optapi.{module}" in MODULES
}
# In a page, other names may be words for arguments; they are links when they are written with the package.
PLAIN = {name for name, whole in SHORT.items() if names.is_rule(PUBLIC[whole]) or "_" in name or name == "minimize"}
PLAIN -= {"momentum", "nesterov"}


# From what docstrings say to the label of the section that it refers to.
SHARED = {"As in every rule": "common-arguments", "As in every rule that searches": "searching-rules"}


def link_to_what_is_shared(app, what, name, thing, options, lines):
    """Links to what all rules take, or all rules that search, from the docstrings that say so."""

    def link(match):
        return f":ref:`{match[0]} <{SHARED[match[0]]}>`"

    lines[:] = [re.sub("As in every rule( that searches)?", link, line) for line in lines]


def mathml(display):
    """How the translator of Sphinx writes a formula: in a line, or a `display` of its own."""

    def visit(translator, node):
        formula = node.astext().strip()
        if display and ("\\\\" in formula or "&" in formula) and "\\begin" not in formula:
            formula = rf"\begin{{split}}{formula}\end{{split}}"
        formula = formula.replace(r"\arg", r"\operatorname{arg}")
        converted = latex2mathml.converter.convert(formula, display="block" if display else "inline")
        if re.search(r"\\|>&<", converted):
            logger.warning("latex2mathml does not know all of the formula %s", formula, location=node)
        tag = "div" if display else "span"
        translator.body.append(f'<{tag} class="math">{converted}</{tag}>')
        raise nodes.SkipNode

    return visit, None


def hide_construction(app, what, name, thing, options, signature, returned):
    """What users do not construct themselves is shown without the arguments of its constructor."""
    return ("", "") if name in names.MADE else None


def setup(app):
    """Fill the pages, and make links of names."""
    app.connect("autodoc-process-docstring", link_to_what_is_shared)
    app.connect("autodoc-process-signature", hide_construction, priority=400)
    app.connect("source-read", lambda app, page, source: source.__setitem__(0, gallery.filled(names.filled(source[0]))))
    app.add_post_transform(NamesAreLinks)
    app.add_html_math_renderer("mathml", mathml(display=False), mathml(display=True))
