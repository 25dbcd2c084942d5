"""Notebooks, figures, widgets, tables and pages. They are built on the core, which never imports them."""
