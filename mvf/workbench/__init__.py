"""What people look at: notebooks, figures, widgets, tables and pages, all built on the core and never needed by it."""
