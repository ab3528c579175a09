"""Reads what an audit wrote: tables, findings, review queues, cases, reports, and thresholds set by people."""
