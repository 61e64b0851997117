"""Responses that contain a picture."""

from __future__ import annotations

from fastapi import Response

# an SVG that is opened as a page needs only its own styles
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def picture_response(picture: bytes, media_type: str, tag: str) -> Response:
    """A picture that clients revalidate each time, and receive only if it has changed (`not_modified`)."""
    headers = {"etag": tag, "cache-control": "no-cache", "content-security-policy": PICTURE_POLICY}
    return Response(picture, media_type=media_type, headers=headers)
