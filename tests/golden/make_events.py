#!/usr/bin/env python3
"""Prints the bytes that tests/clip/run_logs.cpp expects of an event file: what the tensorboard package itself writes for the same events."""

import struct

from tensorboard.compat.proto import event_pb2
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c


def record(event):
    data = event.SerializeToString()
    header = struct.pack("<Q", len(data))
    return (header + struct.pack("<I", masked_crc32c(header)) + data + struct.pack("<I", masked_crc32c(data))).hex()


print(record(event_pb2.Event(wall_time=1.5, file_version="brain.Event:2")))
values = [Summary.Value(tag="train/loss", simple_value=0.5), Summary.Value(tag="val/x", simple_value=-2.0)]
print(record(event_pb2.Event(wall_time=2.5, step=300, summary=Summary(value=values))))
