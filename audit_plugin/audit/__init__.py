"""Audits: samples in, result out."""
