"""From what a person brings (a text, a zip, options) to a queued run."""
