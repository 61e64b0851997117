"""Invalid options of a new run."""

import pytest

from app.errors import InvalidRequestError
from app.intake.options import Options
from app.store.records import RUN_NAME
from model.config import SETTINGS
from model.errors import ConfigError


@pytest.mark.parametrize("name", ["epochs", "priority", "licence"])
@pytest.mark.parametrize(
    "value", [10**400, -(10**400), float("inf"), float("nan"), "9" * 400, [[]], {}, True]
)
def test_huge_option_is_refused_with_a_short_message(name: str, value: object):
    with pytest.raises(ConfigError, match=name) as raised:
        Options.parse({name: value})
    assert len(str(raised.value)) < 300


def test_name_of_a_group_leaves_room_for_its_members():
    longest = "g" * 61
    assert RUN_NAME.fullmatch(f"{longest}.{SETTINGS['members'].high}")
    assert Options.parse({"name": longest, "apart": True}).name == longest
    assert Options.parse({"name": longest + "gg", "apart": "false"}).name == longest + "gg"
    with pytest.raises(InvalidRequestError, match="name must have at most 61 characters with apart"):
        Options.parse({"name": longest + "g", "apart": "true"})
