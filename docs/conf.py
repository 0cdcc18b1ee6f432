"""Configuration of the Sphinx site. Building it reads nothing from the network, nor does reading it."""

import importlib.metadata
import json
import os
import re
from pathlib import Path
from typing import NoReturn

# Autodoc imports jaxconv, and an accelerator would be of no use here.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from docutils import nodes
from docutils.utils.math import latex2mathml

DOCS = Path(__file__).parent

project = "jaxconv"
author = "The jaxconv authors"
project_copyright = author
release = version = importlib.metadata.version("jaxconv")

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "_generated"]

myst_enable_extensions = ["amsmath", "deflist", "dollarmath", "substitution"]
# What `make article` has kept of full runs of the experiments, for {{ experiment/claim }} on a page.
myst_substitutions = json.loads((DOCS / "_generated" / "article.json").read_text("utf-8"))["quotes"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings state shapes and dtypes, which the annotations cannot
add_module_names = False  # the page says which module it is about
numpydoc_show_class_members = False
default_role = "py:obj"  # `convolve` in a docstring is a link, where there is something to link to

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["experiments.css"]
html_title = f"jaxconv {release}"
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"


# The figures of the experiments take the colours of their report, light and dark.
_themes = re.findall(r":root \{(.*?)\}", (DOCS.parent / "experiments" / "report.css").read_text("utf-8"), re.DOTALL)
_light, _dark = (dict(re.findall(r"--([a-z-]+): (#\w+);", theme)) for theme in _themes)
html_theme_options = {"light_css_variables": _light, "dark_css_variables": _dark}


def _render(wrapper: str):
    """Return a visitor that writes a formula as MathML, which browsers show without a script from elsewhere."""

    def visit(translator, node: nodes.Element) -> NoReturn:
        block = wrapper == "div"
        formula = latex2mathml.tex2mathml(node.astext(), as_block=block)
        translator.body.append(f'<{wrapper} class="math">{formula}</{wrapper}>')
        raise nodes.SkipNode

    return visit


def setup(app) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", (_render("span"), None), (_render("div"), None))
