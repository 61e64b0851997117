"""Turns what a user brings (a text, a document, a zip, options) into a queued run."""
