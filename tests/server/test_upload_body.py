"""Bodies of uploads that are cut short."""

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.server.upload_body import received
from app.slots import UploadSlots

PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'


async def names(body: bytes) -> list[str]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/runs", "query_string": b"", "headers": headers}
    scope["client"] = ("192.0.2.1", 1)
    async with received(Request(scope, receive), 1000, UploadSlots(1)) as upload:
        return [source.name for source in upload.sources]


def test_form_truncated_inside_a_file_is_refused():
    with pytest.raises(HTTPException, match="ends in the middle of a file"):
        asyncio.run(names(PART + b"Sat\r\n" + PART + b"ran o"))
    assert asyncio.run(names(PART + b"Sat\r\n" + PART + b"ran on\r\n--x--\r\n")) == ["a.txt", "a.txt"]
