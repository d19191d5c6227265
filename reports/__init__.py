"""Pictures and pages: a folder of results becomes a PDF, an HTML page and a Markdown summary.

``findings`` turns rows into sentences, ``figures`` rows into pictures, ``content`` puts both in
order, ``document`` (PDF) and ``page`` (HTML, Markdown) render them. ``compare`` and its kin lay
several folders side by side. Nothing here measures: every column comes from :mod:`bench.table`.
No torch.
"""

from __future__ import annotations

from reports.build import ReportFiles, build_comparison, build_report

__all__ = ["ReportFiles", "build_comparison", "build_report"]
