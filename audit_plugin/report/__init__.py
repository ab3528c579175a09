"""The report: one self-contained HTML file for people who have neither the data nor the App."""

from __future__ import annotations

from .content import (
    ReportContent,
    TextChange,
    now,
    read_cross_modal,
    read_scores,
    read_summary,
    recorded_manifest,
    report_of_table,
)
from .page import report_html, write_report
from .score_table import read_score_table

__all__ = [
    "ReportContent",
    "TextChange",
    "now",
    "read_cross_modal",
    "read_score_table",
    "read_scores",
    "read_summary",
    "recorded_manifest",
    "report_html",
    "report_of_table",
    "write_report",
]
