"""Leases of a folder in a store: live jobs are respected, dead ones are not waited for."""

import contextlib
import threading

import pytest

from pipeline import errors
from pipeline.io import object_lock, objects

FOLDER = "memory://box/data"


class Store:
    """The four operations of a store that a lease needs, with a clock that the test controls."""

    def __init__(self):
        self.now = 1000.0
        self.kept = {}
        self.reachable = True

    def write(self, path, content):
        self._ask(path)
        self.kept[path] = (content.read(), self.now)

    def read(self, path, limit):
        return self.kept[path][0][:limit]

    def match(self, folder, start=""):
        self._ask(folder)
        root = f"{folder}/{start}"
        return [
            objects.Object(path[len(folder) + 1 :], updated)
            for path, (_, updated) in self.kept.items()
            if path.startswith(root)
        ]

    def delete(self, path):
        self._ask(path)
        self.kept.pop(path, None)

    def _ask(self, path):
        if not self.reachable:
            raise objects.ObjectError(path, "not reachable")


@pytest.fixture
def store(monkeypatch):
    store = Store()
    for name in ("write", "read", "match", "delete"):
        monkeypatch.setattr(objects, name, getattr(store, name))
    return store


def hold(folder=FOLDER):
    return object_lock.Lease(folder)


def test_a_second_job_is_refused_and_leaves_nothing(store):
    with hold() as first:
        store.now += 30
        with (
            pytest.raises(errors.UserError, match=r"another job \(process \d+ on .*30 seconds"),
            hold(),
        ):
            pass
        assert len(store.kept) == 1
        first.check()
    assert not store.kept
    with hold():
        assert len(store.kept) == 1


def test_another_folder_is_free(store):
    with hold(), hold(FOLDER + "2"):
        assert len(store.kept) == 2


def test_a_dead_jobs_lease_expires(store):
    dead = hold()
    dead._write()
    store.now += object_lock.EXPIRY_SECONDS + 1
    with hold() as living:
        assert len(store.kept) == 1
        with pytest.raises(errors.UserError, match="another has taken over"):
            dead.check()
        living.check()


def test_a_living_job_shows_it(store, monkeypatch):
    monkeypatch.setattr(object_lock, "BEAT_SECONDS", 0.01)
    beaten = threading.Event()
    write = store.write

    def watch(path, content):
        write(path, content)
        if store.now > 1000:
            beaten.set()

    monkeypatch.setattr(objects, "write", watch)
    with hold():
        store.now += 10 * object_lock.EXPIRY_SECONDS
        assert beaten.wait(10)
        with pytest.raises(errors.UserError, match="another job"), hold():
            pass


def test_who_was_taken_for_dead_does_not_come_back(store, monkeypatch):
    monkeypatch.setattr(object_lock, "BEAT_SECONDS", 0.01)
    with hold() as late:
        store.reachable = False
        store.now += object_lock.EXPIRY_SECONDS + 1
        store.kept.clear()
        store.reachable = True
        late._thread.join(10)
        assert not late._thread.is_alive()
        assert not store.kept


@pytest.fixture
def clock(store, monkeypatch):
    """Makes this machine's clock follow that of the store."""
    monkeypatch.setattr(object_lock, "_now", lambda: store.now)
    return store


def take_over_before(store, monkeypatch, action, kept):
    """Lets another job take over just before the next call of one of the store's methods."""
    call = getattr(objects, action)
    others = []

    def delayed(*arguments):
        monkeypatch.setattr(objects, action, call)
        store.now += object_lock.EXPIRY_SECONDS + 1
        others.append(hold())
        kept.enter_context(others[0])
        return call(*arguments)

    monkeypatch.setattr(objects, action, delayed)
    return others


@pytest.mark.parametrize("action", ["match", "write"])
def test_between_a_look_and_a_write_another_may_take_over(clock, monkeypatch, action):
    with contextlib.ExitStack() as kept, hold() as late:
        clock.now += object_lock._LATE_SECONDS + 1
        others = take_over_before(clock, monkeypatch, action, kept)
        with pytest.raises(object_lock.LostError, match="another has taken over"):
            late.check()
        with pytest.raises(object_lock.LostError):
            late.check()
        others[0].check()
        assert len(clock.kept) == 1


def test_who_is_late_and_alone_goes_on(clock):
    with hold() as late:
        clock.now += object_lock.EXPIRY_SECONDS + 1
        late.check()
        # This was a sign of life.
        with pytest.raises(errors.UserError, match="another job"), hold():
            pass
        late.check()


def test_who_is_in_time_does_not_give_way_to_those_who_ask(clock):
    with hold() as first:
        asking = hold()
        asking._write()
        clock.now += object_lock.BEAT_SECONDS
        first.check()
        first._renew()
        first.check()
        asking._remove(asking._name)


def test_who_stood_still_while_asking_looks_again(clock, monkeypatch):
    first = hold()
    refuse_others = first._refuse_others
    second = hold()

    def stand_still():
        refuse_others()
        clock.now += object_lock.EXPIRY_SECONDS + 1
        second.__enter__()

    monkeypatch.setattr(first, "_refuse_others", stand_still)
    with pytest.raises(object_lock.LostError), first:
        pass
    second.check()
    second.__exit__(None, None, None)
    assert not clock.kept


def test_a_store_that_is_out_of_reach_for_a_while_ends_nothing(store, monkeypatch):
    monkeypatch.setattr(object_lock, "BEAT_SECONDS", 0.01)
    with hold() as held:
        store.reachable = False
        held._thread.join(0.1)
        assert held._thread.is_alive()
        store.reachable = True
        held.check()
