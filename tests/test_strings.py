"""The strings that a user can see are plain English: none of them contains a word of the list below."""

import re

import pytest

from tests.support.strings import visible_texts

TEXTS = list(visible_texts())

INSTEAD = {
    r"\bbesides?\b": "also, next to",
    r"\b(who|what|which)ever\b": "the client, the operator, any",
    r"(?<!there )\bis no (number|folder|directory|file|text|server|Charloom)\b": "is not a",
    r"\bis told\b|\bwas told\b|\ball was told\b": "is reported, gets",
    r"\bfor ever\b": "indefinitely",
    r"(?<!texts )\bat once\b": "immediately",
    r"\bby itself\b": "automatically",
    r"\bas it comes\b": "default, auto",
    r"\bmended\b": "fixed",
    r"\b(put|goes|go) first\b": "is prioritised, is deleted first",
    r"\b[Tt]ake (in|up) (a|an)\b": "import, continue",
    r"\b(goes|go) on from\b": "continues from",
    r"\bobey": "act",
    r"\bcome back\b": "try again",
    r"\bin (its|their) turn\b": "when its turn comes",
    r"\bguess(ing)?, ln K": "uniform",
    r"\bthe (best|newest|other) has not\b": "the best checkpoint does not have it",
    r"\b[a-z]+\(s\)": "counted(n, 'character')",
    r'[a-z] "\s+"[a-z]': "one string: these quotes are shown",
}


@pytest.mark.parametrize("pattern", INSTEAD)
def test_visible_strings_avoid_the_word(pattern):
    found = [str(text) for text in TEXTS if re.search(pattern, text.text)]
    assert not found, f"write {INSTEAD[pattern]!r}"


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("app/errors.py", "is not a valid run name"),
        ("app/api/native/score.py", "The log-probability and the rank"),
        ("app/cli.py", "Download the default text"),
        ("app/settings.py", "Maximum number of texts per request."),
        ("app/web/parts/notices.js", "The server does not answer."),
        ("app/web/templates/base.html", "Skip to the content"),
        ("app/web/templates/report.md", "The best network so far"),
        ("model/errors.py", "characters that this model has never seen"),
    ],
)
def test_strings_of_every_kind_of_file_are_collected(path, part):
    assert any(text.path == path and part in text.text for text in TEXTS)
