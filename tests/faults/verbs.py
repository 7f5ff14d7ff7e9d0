"""What guard is asked to do in a case: each is a whole command, as a user gives it."""

from __future__ import annotations

import os

from driving import Project
from faults.unkept import names
from rollback.engine import Engine
from rollback.errors import DrillFailed, StoreCorrupt


def snapshot(project: Project) -> None:
    """Take a snapshot."""
    project.snapshot()


def recover(project: Project) -> None:
    """Finish or take back what died."""
    project.recover()


def drill(project: Project) -> None:
    """Rehearse the newest snapshot."""
    with project.engine() as engine:
        report = engine.drill(engine.find_snapshot("last"), mode="full")
        if not report.passed:
            raise DrillFailed(f"it did not pass: {report.failures}", hint="again")


def rollback(project: Project, unkept: frozenset[bytes] = frozenset()) -> None:
    """Put the oldest snapshot back; whatever is named but what it did not keep is an error."""
    with project.engine() as engine:
        snapshot = min(engine.snapshots(), key=lambda found: found.seq)
    outcome = project.rollback(snapshot)
    shown = [os.fsdecode(os.path.join(project.path, path)) for path in unkept]
    for skip in outcome.skipped:
        if not any(names(skip, path) for path in shown):
            raise AssertionError(f"it was said not to be put back: {skip}")


def undo(project: Project) -> None:
    """Take the rollback back."""
    project.undo()


def redo(project: Project) -> None:
    """Take the undo back."""
    project.redo()


def prune(project: Project) -> None:
    """Keep one snapshot."""
    with project.engine() as engine:
        engine.prune(keep_last=1)


def repair(project: Project) -> None:
    """Mend the store."""
    with project.engine() as engine:
        report = engine.verify(repair=True)
        if not report.ok:
            raise StoreCorrupt(f"not mended: {report.damage}", hint="again")


def verify(project: Project) -> None:
    """Look through the store; whatever is wrong with it is an error."""
    with project.engine() as engine:
        report = engine.verify(repair=False)
        if not report.ok:
            raise AssertionError(f"the store is damaged: {report.damage}")
        _refuse_unknown(project, engine)


def _refuse_unknown(project: Project, engine: Engine) -> None:
    """Raise where the store holds content that its catalog does not know."""
    db = engine.store.catalog.db
    blobs = {row[0].hex() for row in db.execute("SELECT id FROM blob")}
    packs = {f"{row[0]}.pack" for row in db.execute("SELECT name FROM pack")}
    snapshots = db.execute("SELECT count(*) FROM snapshot").fetchone()[0]
    unknown = [
        str(path)
        for folder in ("loose", "links")
        for path in (project.store / folder).glob("*/*")
        if path.name not in blobs
    ]
    unknown += [p.name for p in (project.store / "packs").iterdir() if p.name not in packs]
    documents = len(list((project.store / "snapshots").iterdir()))
    if unknown or documents != snapshots:
        raise AssertionError(f"unknown {unknown[:5]}, {documents} documents of {snapshots}")


def rot(project: Project) -> None:
    """Damage what can be mended: a byte of each pack and large blob, and the documents."""
    for document in (project.store / "snapshots").iterdir():
        document.write_bytes(document.read_bytes()[:-9])
    with project.engine() as engine:
        rows = engine.store.catalog.db.execute(
            "SELECT hex(blob.id), kind, name, place FROM blob"
            " LEFT JOIN pack ON pack.id = blob.pack WHERE kind IN (1, 2) AND blob.length > 0"
        ).fetchall()
    seen: set[object] = set()
    for name, kind, pack, place in rows:
        key = (kind, pack)
        if key in seen:
            continue
        seen.add(key)
        low = name.lower()
        path = f"loose/{low[:2]}/{low}" if kind == 2 else f"packs/{pack}.pack"
        with (project.store / path).open("r+b") as file:
            file.seek(place if kind == 1 else 0)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0x40]))
