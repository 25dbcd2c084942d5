"""Notebook helpers, figures, widgets, tables and report pages, built on the core, which never imports them."""
