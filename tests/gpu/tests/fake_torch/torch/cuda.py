"""`torch.cuda` of the fake: streams, graphs and events that do nothing, in the order that is allowed."""

import contextlib


def is_available():
    return True


def get_device_name():
    return "fake GPU"


def synchronize():
    pass


class Stream:
    def synchronize(self):
        pass


@contextlib.contextmanager
def stream(s):
    assert isinstance(s, Stream)
    yield


class CUDAGraph:
    captured = False

    def replay(self):
        assert self.captured, "a graph is replayed before it is captured"


@contextlib.contextmanager
def graph(g):
    yield
    g.captured = True


class Event:
    def __init__(self, enable_timing):
        assert enable_timing
        self.recorded = False

    def record(self):
        self.recorded = True

    def synchronize(self):
        assert self.recorded

    def elapsed_time(self, end):
        assert self.recorded and end.recorded
        return 1.0
