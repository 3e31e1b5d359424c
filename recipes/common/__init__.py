"""Helpers that the recipes share."""
