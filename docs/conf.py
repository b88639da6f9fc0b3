"""Sphinx, run on the whole repository: README.md and CONTRIBUTING.md are pages as they stand."""

import sspcab_cuda

project = "sspcab_cuda"
author = "the sspcab_cuda authors"
release = version = sspcab_cuda.__version__.partition("+")[0]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
root_doc = "docs/index"
exclude_patterns = [".venv", "build"]
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/*.md", "docs/*.md"]
nitpicky = True

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints = "none"  # docstrings say types and shapes
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
templates_path = ["."]
html_additional_pages = {"index": "start.html"}  # pages lie where they lie in the repository
html_title = f"sspcab_cuda {release}"
