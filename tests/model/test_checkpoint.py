import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import checkpoint as checkpoints
from model.checkpoint import Checkpoint, decode, encode, load
from model.config import RunConfig
from model.errors import CheckpointError
from model.network import Network, NetworkConfig
from model.vocabulary import Vocabulary


def make(step: int = 7, cell: str = "gru", hidden: int = 4, characters: str = "\n abé😀") -> Checkpoint:
    vocabulary = Vocabulary.from_text(characters)
    config = RunConfig(cell=cell, hidden=hidden)
    sizes = NetworkConfig(len(vocabulary), hidden, 1, cell)
    flat = np.random.default_rng(step).normal(size=sizes.size()).astype(np.float32)
    return Checkpoint(
        config=config,
        vocabulary=vocabulary,
        step=step,
        parameters=flat,
        text_sha256="ab" * 32,
        tensors={"state": np.ones((1, 1, 2, hidden), np.float32), "optimizer.m": flat * 2},
        progress={"loss": 0.1 + 0.2, "random_state": {"state": 2**127 + 1}},
    )


@settings(max_examples=25)
@given(st.integers(0, 10**9), st.sampled_from(["elman", "gru", "lstm"]), st.text(min_size=1))
def test_decode_reverses_encode_to_the_bit(step, cell, characters):
    original = make(step, cell, characters=characters)
    copy = decode(encode(original))
    assert (copy.config, copy.vocabulary, copy.step) == (original.config, original.vocabulary, step)
    assert (copy.text_sha256, copy.progress) == (original.text_sha256, original.progress)
    assert copy.parameters.tobytes() == original.parameters.tobytes()
    assert copy.parameters.dtype == np.float32
    assert {n: t.tobytes() for n, t in copy.tensors.items()} == {
        n: t.tobytes() for n, t in original.tensors.items()
    }
    assert copy.digest == original.digest != ""


def test_checkpoints_have_equal_bytes_only_if_they_are_equal():
    assert encode(make()) == encode(make())
    first, second = make(), make()
    second.parameters[0] = np.nextafter(second.parameters[0], np.float32(9))
    encode(first), encode(second)
    assert first.digest != second.digest


def test_network_of_a_checkpoint_has_its_parameters():
    original = make()
    network = decode(encode(original)).network()
    assert isinstance(network, Network)
    np.testing.assert_array_equal(network.flat, original.parameters)


@settings(max_examples=150)
@given(st.data())
def test_any_flipped_bit_is_detected(data):
    whole = encode(make())
    index = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[index] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CheckpointError):
        decode(bytes(damaged))


@settings(max_examples=50)
@given(st.data())
def test_truncated_file_is_refused(data):
    whole = encode(make())
    with pytest.raises(CheckpointError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(CheckpointError):
        decode(data)


def forge(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A file with changed metadata and a checksum that matches the change."""
    whole = encode(make())
    described = json.loads(checkpoints._metadata(whole, "").partition(" ")[2])
    change(described)
    tensors, text = checkpoints.load_tensors(whole), json.dumps(described)
    return checkpoints.save_tensors(tensors, {"charloom": f"{checkpoints._digest(text, tensors)} {text}"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(version=99), "version 99, this program reads 1: upgrade"),
        (lambda d: d["config"].update(hidden=5), "layer0.U has shape"),
        (lambda d: d.update(vocabulary="abc"), "has shape"),
        (lambda d: d.update(vocabulary="cba"), "sorted by code point"),
        (lambda d: d["config"].update(cell="gpt"), "must be one of"),
        (lambda d: d["config"].update(size=3), "is not a field"),
        (lambda d: d.pop("step"), "step"),
    ],
)
def test_inconsistent_file_is_refused_with_the_reason(change, reason):
    with pytest.raises(CheckpointError, match=reason):
        decode(forge(change))


def test_safetensors_file_of_another_program_is_refused():
    with pytest.raises(CheckpointError, match="not a Charloom checkpoint"):
        decode(checkpoints.save_tensors({"x": np.zeros(3)}, {"format": "pt"}))


def test_forged_file_without_changes_is_accepted():
    assert decode(forge(lambda d: None)).step == 7


def test_checkpoint_with_non_finite_values_is_refused():
    broken = make()
    broken.parameters[3] = np.nan
    with pytest.raises(CheckpointError, match=r"layer0\.U holds values that are not finite"):
        decode(encode(broken))


def test_unreadable_file_is_refused_with_the_reason(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        load(tmp_path / "absent.safetensors")
    path = tmp_path / "x.safetensors"
    path.write_bytes(encode(make()))
    assert load(path).step == 7
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"x\.safetensors: is not a safetensors file"):
        load(path)


def test_file_over_the_size_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    path.write_bytes(encode(make()))
    monkeypatch.setattr(checkpoints, "MAX_BYTES", 100)
    with pytest.raises(CheckpointError, match="larger than 100 bytes"):
        load(path)
