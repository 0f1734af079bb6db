import json
import struct

import pyarrow.parquet as pq
import pytest
from tensorboardX.proto.event_pb2 import Event

from mibao.cli import train_curves
from mibao.cli.train_curves import PARQUET, PNG, TENSORBOARD, Curves

ROUNDS = [
    {"round": 0, "seconds": 0.5, "loss": 2.0, "client_loss": 2.5},
    {"round": 1, "seconds": 0.4, "abandoned": "too few"},
    {"round": 2, "seconds": 0.3, "loss": 1.0, "client_loss": 1.5, "refused": [{"site": 1, "why": "gone"}]},
]


def write(folder, rounds):
    curves = Curves(folder)
    for line in rounds:
        curves.add(line)
    return curves


def scalars(folder):
    """What TensorBoard would show: of each name and step the last value after all purges."""
    found = {}
    for path in sorted((folder / TENSORBOARD).iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack_from("<Q", data)
            event = Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            if event.HasField("session_log"):
                found = {place: value for place, value in found.items() if place[1] < event.step}
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


def test_every_number_of_every_round_reaches_parquet_and_tensorboard(tmp_path):
    write(tmp_path, ROUNDS).close(list(map(json.dumps, ROUNDS)))
    rows = pq.read_table(tmp_path / PARQUET).to_pylist()
    assert [{name: value for name, value in row.items() if value is not None} for row in rows] == ROUNDS
    numbers = {
        (name, line["round"]): pytest.approx(value)
        for line in ROUNDS
        for name, value in line.items()
        if name in ("seconds", "loss", "client_loss")
    }
    assert scalars(tmp_path) == numbers


def test_the_curves_are_a_picture_with_a_panel_a_metric(tmp_path):
    write(tmp_path, ROUNDS).close(list(map(json.dumps, ROUNDS)))
    data = (tmp_path / PNG).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    wide, high = struct.unpack(">II", data[16:24])
    assert (wide, high) == (1200, 384)  # seconds and loss, side by side


def test_a_round_that_is_run_again_after_a_crash_is_shown_once(tmp_path):
    write(tmp_path, ROUNDS)
    again = [{"round": 1, "seconds": 9.0}, {"round": 2, "seconds": 8.0}]
    write(tmp_path, again).close([])
    found = scalars(tmp_path)
    assert [found["seconds", number] for number in range(3)] == pytest.approx([0.5, 9.0, 8.0])
    assert ("loss", 2) not in found


def test_without_the_extra_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(train_curves, "_NEEDED", ("no_such_module",))
    curves = write(tmp_path, ROUNDS)
    curves.close(list(map(json.dumps, ROUNDS)))
    assert (curves.written, list(tmp_path.iterdir())) == ((), [])
