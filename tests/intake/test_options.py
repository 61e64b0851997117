"""Invalid options of a new run."""

import pytest

from app.intake.options import Options
from model.errors import ConfigError


@pytest.mark.parametrize("name", ["epochs", "priority", "licence"])
@pytest.mark.parametrize(
    "value", [10**400, -(10**400), float("inf"), float("nan"), "9" * 400, [[]], {}, True]
)
def test_huge_option_is_refused_with_a_short_message(name: str, value: object):
    with pytest.raises(ConfigError, match=name) as raised:
        Options.parse({name: value})
    assert len(str(raised.value)) < 300
