"""From what a person brings (a text, a document, a zip, options) to a queued run."""
