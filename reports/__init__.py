"""Pictures and pages: a folder of results becomes a PDF, an HTML page and a Markdown summary.

``findings`` turns rows into sentences, ``figures`` rows into pictures, ``content`` puts both in
order, ``document`` (PDF) and ``page`` (HTML, Markdown) render them. Nothing here measures
or derives: every column comes from :mod:`bench.table`. No torch.
"""

from __future__ import annotations

from reports.build import ReportFiles, build_report

__all__ = ["ReportFiles", "build_report"]
