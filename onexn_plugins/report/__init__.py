"""Reports: plain data in one JSON file, shown as one HTML page, Markdown or terminal tables.

    page = Page(title, summary, sections=(Section(heading, table=Table(columns, rows)),), record=...)
    save(page, "report.json"); write_html(load("report.json"), "report.html")
"""

from onexn_plugins.report.document import Column, Highlight, Page, Plot, Section, Table, load, save
from onexn_plugins.report.page import write_html, write_svg
from onexn_plugins.report.tables import to_markdown, to_text

__all__ = [
    "Column", "Highlight", "Page", "Plot", "Section", "Table", "load", "save", "to_markdown", "to_text", "write_html",
    "write_svg",
]
