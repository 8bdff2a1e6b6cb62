"""Sphinx's settings; `python docs/site OUT` lays out the pages and calls it."""

import os

project = "jaxrl"
html_title = "jaxrl"
extensions = ["myst_parser"]
myst_heading_anchors = 4
myst_disable_syntax = ["html_block", "html_inline"]  # `<T>` in a text is a text
highlight_language = "none"
html_theme = "furo"
html_static_path = [os.environ["JAXRL_SITE"]]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
exclude_patterns = ["**.ipynb"]
smartquotes = False  # flags and ids are shown as they are typed
suppress_warnings = ["ref.python"]  # a type in a signature may be one of several modules' State
