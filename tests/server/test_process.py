"""How many connections and descriptors a server takes."""

import resource

import pytest

from app.server.process import CONNECTIONS, RESERVED, most_connections, raise_descriptor_limit

WANTED, NO_LIMIT = CONNECTIONS + RESERVED, resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((1024, NO_LIMIT), [(WANTED, NO_LIMIT)]),
        ((1024, 1 << 20), [(WANTED, 1 << 20)]),
        ((1024, 2048), [(2048, 2048)]),
        ((1024, 1024), []),
        ((1 << 20, 1 << 20), []),
        ((NO_LIMIT, NO_LIMIT), []),
    ],
)
def test_soft_limit_of_descriptors_is_raised_to_what_is_allowed(monkeypatch, limits, raised):
    done = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, new: done.append(new))
    raise_descriptor_limit()
    assert done == raised


@pytest.mark.parametrize(
    ("soft", "most"),
    [(1024, 1024 - RESERVED), (RESERVED, 1), (WANTED, CONNECTIONS), (NO_LIMIT, CONNECTIONS)],
)
def test_connections_leave_descriptors_for_files_and_helpers(monkeypatch, soft, most):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, NO_LIMIT))
    assert most_connections() == most
