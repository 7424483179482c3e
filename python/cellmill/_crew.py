"""Dask workers that read the rows of a run: what the engine asks of a client, and what a worker does."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import _cellmill
from ._settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

#: Key, what the worker is told, first task, the one after the last, tasks of the whole pass, bytes that a worker must have room for.
Order = tuple[str, str, int, int, int, int]

#: Seconds between two looks for orders that were carried out.
_PULSE = 0.02
#: Seconds of silence after which it is looked whether workers have gone.
_PATIENCE = 2.0
#: How often an order is given again after a worker could not reach a file or had too little memory.
_RETRIES = 2
#: How many workers an order that needs much memory may lose.
_LOSSES = 3
#: Seconds that it waits for a worker with so much memory, in place of one that it has lost.
_WAIT = 60.0


class Crew:
    """The workers of a Dask client. The engine calls it from a thread of its own."""

    def __init__(self, client: Any, *, ours: bool = False) -> None:
        self._client = client
        self._ours = ours
        self.scheduler = str(client.scheduler.addr)
        #: Each order's future, the order, its place among those handed out, and the worker that it was meant for.
        self._orders: dict[str, tuple[Any, Order, int, list[str] | None]] = {}
        self._done: Any = None
        #: When the last order was carried out.
        self._heard = 0.0
        #: When it was first seen that an order has lost its worker and no other has the memory.
        self._lost: float | None = None
        #: Which worker has the rows of a task, by task.
        self._holder: dict[int, str] = {}

    @classmethod
    def of(cls, client: Any) -> Crew:
        """The workers of a client, or of the scheduler at an address."""
        try:
            from distributed import Client
        except ImportError as error:
            msg = 'a run on workers needs Dask: pip install "cellmill[distributed]"'
            raise ImportError(msg) from error
        if isinstance(client, str):
            return cls(Client(client, set_as_default=False), ours=True)
        return cls(client)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._ours:
            self._client.close()

    def n_workers(self) -> int:
        """Workers that there are now; waits a while for the first."""
        self._client.wait_for_workers(1, timeout=60)
        return len(self._client.nthreads())

    def rooms(self) -> list[tuple[str, int]]:
        """Each worker's address and how many bytes the engine may take there: largest first; waits a while for the first."""
        self.n_workers()
        found = self._client.run(room, on_error="ignore")
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))

    def gpus(self) -> list[tuple[str, str | None]]:
        """Each worker's address, and why the engine finds no GPU there if it finds none; waits a while for the first."""
        self.n_workers()
        return sorted(self._client.run(no_gpu).items())

    def submit(self, orders: list[Order]) -> None:
        """Hands out the orders of a pass."""
        from distributed import as_completed

        self._orders.clear()
        self._heard = time.monotonic()
        self._done = as_completed([], loop=self._client.loop, with_results=True, raise_errors=False)
        if not orders:
            return
        self.n_workers()
        workers = sorted(self._client.nthreads())
        rooms = self.rooms() if any(order[5] for order in orders) else []
        for place, order in enumerate(orders):
            if not order[5]:
                continue
            roomy = [worker for worker, room in rooms if room >= order[5]]
            if not roomy:
                raise MemoryError(_no_room(order))
            self._hand_out(order, place, workers=[roomy[place % len(roomy)]])
        for place, order in enumerate(orders):
            _, _, start, end, n_tasks, needs = order
            if needs:
                continue
            # The worker that has most of the rows packed; at first, each gets a stretch of rows. Any other may take an order over.
            holders = Counter(self._holder[i] for i in range(start, end) if self._holder.get(i) in workers)
            wanted = holders.most_common(1)[0][0] if holders else workers[start * len(workers) // n_tasks]
            self._hand_out(order, place, workers=[wanted], allow_other_workers=True)

    def _hand_out(self, order: Order, place: int, **options: Any) -> None:
        future = self._client.submit(work, order[1], key=order[0], pure=False, retries=_RETRIES, **options)
        self._orders[order[0]] = (future, order, place, options.get("workers"))
        self._done.add(future)

    def _hand_out_again(self) -> None:
        """Dask may forget an order for a worker that has gone, where no other was there to take it over at that moment."""
        self._heard = time.monotonic()
        workers = set(self._client.nthreads())
        lost = [held[:3] for held in self._orders.values() if held[3] and not workers.intersection(held[3])]
        rooms = self._client.run(room, on_error="ignore") if any(order[5] for _, order, _ in lost) else {}
        for future, order, place in lost:
            options = {}
            if order[5]:
                if order[0].count("-again") == _LOSSES:
                    msg = f"the order {order[0]} has lost its worker {_LOSSES + 1} times: it may have had too little memory"
                    raise MemoryError(msg)
                roomy = [worker for worker, bytes_ in rooms.items() if bytes_ >= order[5]]
                if not roomy:
                    # Another may come in its place.
                    self._lost = self._lost or time.monotonic()
                    if rooms and time.monotonic() - self._lost > _WAIT:
                        raise MemoryError(_no_room(order))
                    continue
                options["workers"] = [max(roomy, key=rooms.__getitem__)]
            self._lost = None
            del self._orders[order[0]]
            self._hand_out((order[0] + "-again", *order[1:]), place, **options)
            self._client.cancel(future)

    def carried_out(self) -> tuple[list[int], str | None]:
        """Which orders, by their place, have been carried out since the last call; the engine's error, as JSON, if one of them can't be."""
        done: list[int] = []
        batch = self._done.next_batch(block=False)
        if not batch:
            time.sleep(_PULSE)
            if time.monotonic() - self._heard > _PATIENCE:
                self._hand_out_again()
        for future, result in batch:
            if future.key not in self._orders:
                continue
            if isinstance(result, BaseException):
                msg = f"the order {future.key} is lost: the scheduler has gone, or somebody has cancelled it"
                raise ConnectionError(msg)
            if future.status != "finished":
                raise result[1]
            worker, refused = result
            if refused is not None:
                return done, refused
            _, (_, _, start, end, _, _), place, _ = self._orders.pop(future.key)
            self._holder.update(dict.fromkeys(range(start, end), worker))
            self._heard = time.monotonic()
            done.append(place)
        return done, None

    def cancel(self) -> None:
        """Takes back what is not carried out yet."""
        self._client.cancel([held[0] for held in self._orders.values()])
        self._orders.clear()

    def leave(self, run: str) -> None:
        """Lets the workers forget a run."""
        if self._client.status == "running":
            self._client.run(leave, run, wait=False)


@contextmanager
def workers(client: Any = None) -> Iterator[Crew | None]:
    """The workers of a client, or of that of the settings; None if there is neither."""
    client = settings.client if client is None else client
    if client is None:
        yield None
        return
    with Crew.of(client) as crew:
        yield crew


def _no_room(order: Order) -> str:
    return f"the order {order[0]} needs {order[5] / 2**30:.2f} GiB, and no worker has room for that"


def work(order: str) -> tuple[str, str | None]:
    """Carries out an order on the worker that runs this; returns the worker's address and the engine's error, as JSON, if there is one."""
    from distributed import get_worker

    worker = get_worker()
    limit = worker.memory_manager.memory_limit or 0
    try:
        refused = _cellmill.work(order, worker.address, worker.state.nthreads, limit, worker.local_directory)
    except (OSError, MemoryError) as error:
        msg = f"worker {worker.address}: {error}"
        raise type(error)(msg) from None
    return worker.address, refused


async def room(dask_worker: Any) -> int:
    """Bytes that the engine may take on the worker that runs this."""
    return _cellmill.room(dask_worker.memory_manager.memory_limit or 0)


async def no_gpu() -> str | None:
    """Why the engine finds no GPU on the worker that runs this, if it finds none."""
    return _cellmill.no_gpu()


async def leave(run: str) -> None:
    """Forgets a run on the worker that runs this."""
    _cellmill.leave(run)


def serve(address: str) -> None:
    """Answers what the program ``cellmill`` asks of the scheduler at an address: a line of JSON in, a line of JSON out."""

    def say(answer: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    # Ctrl-C is for the program, which takes its orders back.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        crew = Crew.of(address)
    except Exception as error:  # noqa: BLE001  (whatever it is, the program says it)
        return say({"error": str(error)})
    with crew:
        say({"ok": _cellmill.__version__})
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            try:
                say({"ok": getattr(crew, name)(*arguments)})
            except Exception as error:  # noqa: BLE001
                say({"error": str(error)})
