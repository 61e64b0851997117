"""Charloom's own routes."""
