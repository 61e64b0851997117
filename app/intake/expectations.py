"""What to expect of a run before it is trained: its loss, and when it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.intake.planning import expected_speed, suited
from model.batches import Ids, split
from model.config import RunConfig
from model.ngram import baselines
from model.vocabulary import Vocabulary

MEMORISED = 12  # times a text is read before its held-out loss rises
# millions of characters read by each network, of a text of a million -> their loss over the 5-gram's; of two
# networks, but the last, for which there is time enough to train six
RELATIVE = ((0.1, 1.38), (0.3, 1.14), (0.9, 0.99), (5.6, 0.87), (10.9, 0.835))

MeasuredSpeed = Callable[[RunConfig, Vocabulary, Ids], float]


@dataclass(frozen=True)
class Plan:
    """What will be trained, and what to expect.

    Attributes:
        config: of the run.
        characters_per_second: measured here, of each network.
        passes: how often each network reads the text it learns from.
        ngram_loss, expected_loss: of a 5-gram, and of the best checkpoint, on the held-out text, in nats per
            character.
        ends_at: Unix time.
    """

    config: RunConfig
    characters_per_second: float
    passes: float
    ngram_loss: float
    expected_loss: float
    ends_at: float

    def described(self) -> list[str]:
        """Lines for people."""
        config = self.config
        many = f"{config.members} networks side by side, each of" if config.members > 1 else "One network of"
        read = self.characters_per_second * config.minutes * 60
        end = time.strftime("%H:%M:%S", time.localtime(self.ends_at))
        return [
            f"{many} {config.hidden} {config.cell.upper()} units, reading {read / 1e6:.1f} million "
            f"characters: the text {self.passes:.1f} times.",
            f"On the part held out, a 5-gram reaches {self.ngram_loss:.2f} nats per character; "
            f"expect about {self.expected_loss:.2f}.",
            f"It ends at about {end}.",
        ]


def make_plan(text: str, asked: Mapping[str, Any], cores: int, measured: MeasuredSpeed) -> Plan:
    """A plan for `text` and `asked["minutes"]` on so many cores; other fields in `asked` stay as they are.

    `measured` tells how many characters a second each network of a configuration reads here.
    """
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    config, speed = suited(len(ids), asked, cores, lambda config: measured(config, vocabulary, ids))
    seconds = 60 * config.minutes
    training_ids, _ = split(ids, config.validation_fraction)
    ngram_loss = baselines(ids, len(vocabulary), config.validation_fraction)["5-gram"]
    expected = ngram_loss * relative_loss(len(training_ids), seconds * speed)
    passes = seconds * speed / len(training_ids)
    return Plan(config, speed, passes, ngram_loss, expected, time.time() + seconds)


def expected_loss(text: str, characters: int, config: RunConfig, distinct: int) -> float:
    """About what loss a run's best checkpoint reaches on held-out text, in nats per character.

    `text` is the beginning of the run's, two characters or more, `characters` the length of the whole.
    """
    vocabulary = Vocabulary.from_text(text)
    ngram_loss = baselines(vocabulary.encode(text), len(vocabulary), 0.0)["5-gram"]
    read = float(config.steps * config.sequence_length * config.streams)
    if config.minutes:
        read = 60 * config.minutes * expected_speed(config, distinct)
    return ngram_loss * relative_loss(characters * (1 - config.validation_fraction), read)


def relative_loss(characters: float, read: float) -> float:
    """The expected loss on held-out text in units of a 5-gram's, as measured (docs/experiments.md).

    `characters` is the text to learn from, `read` what each network reads of it. A text that is read often
    enough is memorised; and a 5-gram needs more text than a network to become good.
    """
    millions = min(read, MEMORISED * characters) / 1e6
    points, losses = np.log([x for x, _ in RELATIVE]), [loss for _, loss in RELATIVE]
    loss = float(np.interp(math.log(millions), points, losses))
    return loss * math.pow(characters / 1e6, 0.04)
