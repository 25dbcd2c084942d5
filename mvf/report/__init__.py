"""The report page: everything about a run, or two runs compared, in one HTML file that can be sent to anyone."""

from mvf.report.page import write_page

__all__ = ["write_page"]
