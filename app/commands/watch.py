"""`charloom runs watch`: prints the events of a run."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from app.commands.client import checked, path_of
from app.commands.terminal import say
from app.store.records import ENDED

TRIES, PAUSE_SECONDS = 30, 1.0  # attempts to reconnect, and time between them
DELETED = "deleted"  # the state in the last event of a run that was deleted


def watch_run(client: httpx.Client, name: str) -> None:
    """Print the events of a run until it ends; after a lost connection, continue where it broke off.

    Raises RefusedError, or httpx.TransportError if the server stays unreachable.
    """
    last, failed = "", 0
    while True:
        headers = {"last-event-id": last} if last else {}
        try:
            with client.stream("GET", f"{path_of(name)}/events", headers=headers) as answer:
                if checked(answer).status_code == httpx.codes.NO_CONTENT:
                    return
                for event in EventSource(answer).iter_sse():
                    last, failed = event.id or last, 0
                    if tell(event):
                        return
        except httpx.TransportError:
            failed += 1
            if failed > TRIES:
                raise
            time.sleep(PAUSE_SECONDS)


def tell(event: ServerSentEvent) -> bool:
    """Print one event; return whether the run has ended."""
    data: dict[str, Any] = json.loads(event.data)
    if event.event == "progress":
        losses = [
            f"{label} {data[name]:.4f}"
            for name, label in (("smooth_loss", "loss"), ("validation_loss", "held-out"))
            if data.get(name) is not None
        ]
        say(f"step {data['step']:>9,}  {'  '.join(losses)}")
    elif event.event == "sample":
        say(f"--- step {data['step']:,} ---\n{data['text']}\n---")
    elif event.event == "checkpoint":
        say(f"checkpoint {data['model']}")
    elif event.event == "state":
        reason = f": {data['reason']}" if data.get("reason") else ""
        say(f"{data['name']} is {data['state']}{reason}")
        return data["state"] in (*ENDED, DELETED)
    return False
