"""Configuration of the Sphinx site. Building it reads nothing from the network, nor does reading it."""

import importlib.metadata
import os
from typing import NoReturn

# Autodoc imports jaxconv, and an accelerator would be of no use here.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from docutils import nodes
from docutils.utils.math import latex2mathml

project = "jaxconv"
author = "The jaxconv authors"
project_copyright = author
release = version = importlib.metadata.version("jaxconv")

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings state shapes and dtypes, which the annotations cannot
add_module_names = False  # the page says which module it is about
numpydoc_show_class_members = False
default_role = "py:obj"  # `convolve` in a docstring is a link, where there is something to link to

html_theme = "furo"
html_title = f"jaxconv {release}"
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"


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
