import pytest
from fastapi import Request
from starlette.exceptions import HTTPException

from app.server.ranges import KnownSizes


def status(sizes: KnownSizes, tag: str, **headers: str) -> int:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    try:
        sizes.check(Request({"type": "http", "headers": raw}), tag)
    except HTTPException as error:
        return error.status_code
    return 200


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("bytes=0-", 200),
        ("bytes=9-", 200),
        ("bytes=10-", 416),
        ("Bytes = 0-4 , ,9-20", 200),
        ("bytes=0-4,10-20", 416),
        ("bytes=-11", 200),
        ("bytes=-00", 416),
        ("bytes=5-4", 400),
        ("bytes=0-4,9-5", 400),
        ("bytes=0-4,x", 400),
        ("bytes=-", 400),
        ("bytes=-0x1", 400),
        ("bytes=٣-", 400),
        ("bytes", 400),
        ("", 400),
    ],
)
def test_range_is_compared_with_the_known_size(given: str, expected: int):
    sizes = KnownSizes(2)
    sizes.note('"a"', 10)
    assert status(sizes, '"a"', range=given) == expected
    assert status(sizes, '"a"') == 200
    assert status(sizes, '"other"', range=given) == (400 if expected == 400 else 200)
    assert status(sizes, '"a"', range=given, if_range='"older"') == 200
    assert status(sizes, '"a"', range=given, if_range='"a"') == expected


def test_number_of_known_sizes_is_bounded():
    sizes = KnownSizes(2)
    for tag in ("a", "b", "a", "c"):
        sizes.note(tag, 10)
    known = [status(sizes, tag, range="bytes=10-") == 416 for tag in ("a", "b", "c")]
    assert known == [True, False, True]
