"""Checkpoints with a valid checksum and invalid metadata: each raises CheckpointError and nothing else."""

import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from model import checkpoint as checkpoints
from model.checkpoint import Checkpoint, decode, encode, load
from model.config import ConfigError, RunConfig
from model.errors import CheckpointError
from model.network import NetworkConfig
from model.vocabulary import MAX_CHARACTERS, Vocabulary

DEEP = "[" * 20_000 + "]" * 20_000
LONG = 10**400


def checkpoint(**progress: object) -> Checkpoint:
    vocabulary = Vocabulary.from_text("ab\n")
    config = RunConfig(cell="elman", hidden=2, layers=1, embedding=0)
    flat = np.zeros(NetworkConfig(3, 2, 1, "elman").size(), np.float32)
    known = {"seconds": 1.0, "loss": 2.0, "smooth_loss": 2.0, "best_loss": None, "best_step": 0}
    return Checkpoint(config, vocabulary, 7, flat, "ab" * 32, progress=known | progress)


def forged(text: str) -> bytes:
    """A checkpoint whose metadata is `text`, with a matching checksum."""
    tensors = checkpoints.load_tensors(encode(checkpoint()))
    return checkpoints.save_tensors(tensors, {"charloom": f"{checkpoints._digest(text, tensors)} {text}"})


def described(path: tuple[str, ...], value: str) -> str:
    """The metadata with the JSON text `value` in the place of the field at `path`."""
    whole = json.loads(checkpoints._metadata(encode(checkpoint()), "").partition(" ")[2])
    target = whole
    for part in path[:-1]:
        target = target.setdefault(part, {})
    target[path[-1]] = "HERE"
    return json.dumps(whole).replace('"HERE"', value)


ODD = (
    "Infinity",
    "NaN",
    "-1",
    "1e400",
    str(LONG),
    "true",
    "null",
    '"x"',
    "[]",
    "{}",
    "[[[]]]",
    DEEP,
    '"' + "z" * 9 + '"',
)
PLACES = [
    ("step",),
    ("version",),
    ("config",),
    ("vocabulary",),
    ("text_sha256",),
    ("progress",),
    ("config", "hidden"),
    ("config", "learning_rate"),
    ("config", "cell"),
    ("progress", "seconds"),
    ("progress", "loss"),
    ("progress", "smooth_loss"),
    ("progress", "assignment_loss"),
    ("progress", "first_loss"),
    ("progress", "best_loss"),
    ("progress", "best_step"),
    ("progress", "best"),
    ("progress", "as_of"),
    ("progress", "loss_guard"),
    ("progress", "held_out_guard"),
    ("progress", "rollbacks"),
    ("progress", "random_state"),
]
LEGAL = {  # values that are valid in these places
    ("progress",): ("{}",),
    ("text_sha256",): ('"x"', '"zzzzzzzzz"'),
    **{
        ("progress", name): ("null", "-1")
        for name in ("loss", "smooth_loss", "assignment_loss", "first_loss", "best_loss")
    },
    **{("progress", name): ("{}",) for name in ("best", "loss_guard", "held_out_guard")},
    ("progress", "rollbacks"): ("[]",),
    ("progress", "random_state"): ("{}",),
}


@pytest.mark.parametrize("value", ODD, ids=lambda value: value[:9])
@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_invalid_value_in_the_metadata_is_refused(place: tuple[str, ...], value: str):
    data = forged(described(place, value))
    if value in LEGAL.get(place, ()):
        assert decode(data).digest
    else:
        with pytest.raises(CheckpointError) as raised:
            decode(data)
        assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("text", ["", "[]", "null", "7", '"x"', DEEP, "{}", '{"version": 1}'])
def test_metadata_that_is_other_json_is_refused(text: str):
    with pytest.raises(CheckpointError):
        decode(forged(text))


@pytest.mark.parametrize("header", ["", "[]", "null", "7", '"x"', DEEP, "{}", '{"__metadata__": []}'])
def test_header_that_is_other_json_is_refused(header: str):
    with pytest.raises(CheckpointError):
        decode(struct.pack("<Q", len(header)) + header.encode())


def test_weights_of_another_dtype_are_refused():
    tensors = {
        name: tensor.astype(np.float64)
        for name, tensor in checkpoints.load_tensors(encode(checkpoint())).items()
    }
    text = described(("step",), "7")
    data = checkpoints.save_tensors(tensors, {"charloom": f"{checkpoints._digest(text, tensors)} {text}"})
    with pytest.raises(CheckpointError, match="float64"):
        decode(data)


def test_large_header_is_refused_before_it_is_parsed():
    header = b'{"__metadata__":[' + b"[]," * 9_000_000 + b"[]]}"
    data = struct.pack("<Q", len(header)) + header
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="header"):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_load_uses_little_more_memory_than_the_file(tmp_path: Path):
    path = tmp_path / "step-000000007.safetensors"
    path.write_bytes(encode(checkpoint()))
    tracemalloc.start()
    try:
        assert load(path).step == 7
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_vocabulary_over_the_limit_is_refused():
    with pytest.raises(ConfigError, match=f"at most {MAX_CHARACTERS:,}"):
        Vocabulary(map(chr, range(32, 33 + MAX_CHARACTERS)))


def test_file_with_a_vocabulary_of_400_000_characters_is_refused():
    characters = "".join(chr(code) for code in range(0x10000, 0x10000 + 400_000))
    text = json.dumps(json.loads(described(("vocabulary",), json.dumps(characters))), ensure_ascii=False)
    data = forged(text)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=f"at most {MAX_CHARACTERS:,}|header"):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def test_checkpoint_that_could_not_be_read_back_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        encode(checkpoint(loss=float("inf")))


def test_checkpoint_error_does_not_name_the_directory(tmp_path: Path):
    path = tmp_path / "step-000000007.safetensors"
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError) as raised:
        load(path)
    assert str(tmp_path) not in str(raised.value)
    assert "step-000000007.safetensors" in str(raised.value)


@pytest.mark.parametrize("name", ["hidden", "learning_rate", "minutes", "seed", "cell"])
@pytest.mark.parametrize("value", [LONG, -LONG, float("inf"), "1" * 400, "x" * 100_000, [[]], None, True])
def test_huge_setting_is_refused_with_a_short_message(name: str, value: object):
    with pytest.raises(ConfigError) as raised:
        RunConfig().replace(**{name: value})
    assert len(str(raised.value)) < 400
