"""What can happen to a worker in the middle of a run."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

distributed = pytest.importorskip("distributed")


class Trouble(distributed.WorkerPlugin):
    """Something happens to a worker at one of its orders: those of a pass whose name begins so."""

    name = "trouble"

    def __init__(self, what: str, passes: str, orders: set[int], folder: str) -> None:
        self.what, self.passes, self.orders, self.folder = what, passes, orders, folder

    def setup(self, worker: distributed.Worker) -> None:
        import cellmill._crew

        module = cellmill._crew
        native = self.native = module._cellmill
        seen = iter(range(10**9))

        def work(order: str, *rest):
            hit = json.loads(order)["pass"].startswith(self.passes) and next(seen) in self.orders
            if hit:
                Path(self.folder, f"hit-{os.getpid()}").touch()
            if hit and self.what == "killed before":
                os.kill(os.getpid(), signal.SIGKILL)
            if hit and self.what == "out of memory":
                # Its nanny looks ten times a second.
                held = b"x" * (2 * worker.memory_manager.memory_limit)
                time.sleep(30)
                del held
            if hit and self.what == "slow":
                time.sleep(1)
            if hit and self.what == "no folder":
                order = order.replace("there.zarr.journal", "elsewhere.zarr.journal")
            answer = native.work(order, *rest)
            if hit and self.what == "killed after":
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        others = {name: staticmethod(getattr(native, name)) for name in ("leave", "room", "no_gpu")}
        module._cellmill = type("Native", (), {"work": staticmethod(work), **others})

    def teardown(self, worker: distributed.Worker) -> None:
        import cellmill._crew

        cellmill._crew._cellmill = self.native
