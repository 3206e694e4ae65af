"""Where journals live on this machine, and how they are grouped.

``<root>/<group>/<journal>/``: a group is one target with one credential, so that one shipper, one
connection and one rate serve every process that logs there.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import platformdirs

from autolog.journal import files
from autolog.journal.layout import FILES, HELD, META

SHIPPER_LOCK = "shipper.lock"
SHIPPER_STATE = "shipper.json"
SHIPPER_LOG = "shipper.log"
SHIPPER_SUCCESSOR = "successor.lock"
"""Locked while `autolog sync` waits or ships, perhaps with a credential that is not refused."""
_KEY = "key"
_DEPTH = 4
"""Folders below a root that may be journals: group, journal, run set aside; one more for whoever
collects roots in a folder."""
_MOUNTS = Path("/proc/self/mounts")
_OCTAL = re.compile(r"\\([0-7]{3})")
"""How a space stands there."""
_REMOTE = frozenset(
    "nfs nfs4 cifs smb3 smbfs fuse.sshfs fuse.s3fs fuse.blobfuse fuse.blobfuse2 fuse.gcsfuse"
    " fuse.goofys fuse.rclone lustre gpfs beegfs ceph fuse.ceph glusterfs fuse.glusterfs afs 9p"
    " panfs wekafs".split()
)


def journal_root(configured: Path | None) -> Path:
    """The folder for journals, made if need be: private, writable, on a local disk if possible.

    The configured one, else the user's state folder if it is on a local filesystem, else a folder
    of this user's on node-local scratch.
    Raises `OSError` when none of them can be written.
    """
    state = Path(platformdirs.user_state_dir("autolog"))
    scratch = Path(tempfile.gettempdir()) / f"autolog-{os.getuid() if os.name == 'posix' else ''}"
    places = [configured] if configured else []
    places += [scratch, state] if is_remote(state) else [state, scratch]
    problem: OSError = OSError("no folder to try")
    for place in places:
        try:
            return _private_folder(place)
        except OSError as error:
            problem = error
    raise problem


def group_name(target: str, credentials: Iterable[str], root: Path) -> str:
    """The folder name of a target and the credential used there.

    The fingerprint is an HMAC with a key that stays in the root: it tells credentials apart and
    tells nothing about them.
    """
    mac = hmac.new(_key(root), digestmod=hashlib.sha256)
    for part in (target, *credentials):
        mac.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", target.partition("://")[2]).strip("-")[-40:]
    return f"{readable or 'local'}-{mac.hexdigest()[:12]}"


def journals(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """The journals in a folder: itself, those of a group, of a root, or set aside by a shipper."""
    if (folder / META).is_file():
        yield folder
        folder = folder / HELD
    try:
        children = sorted(entry for entry in folder.iterdir() if entry.name != FILES)
    except OSError:
        return
    for child in children:
        if depth and child.is_dir() and not child.is_symlink():
            yield from journals(child, depth - 1)


def group_of(journal: Path) -> Path:
    """The group that a journal, or a run set aside from one, belongs to."""
    while journal.parent.name == HELD:
        journal = journal.parent.parent
    return journal.parent


def _private_folder(place: Path) -> Path:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and place.stat().st_uid != os.getuid():
        raise PermissionError(f"{place} belongs to another user")
    probe = place / f".probe-{secrets.token_hex(4)}"
    probe.touch(mode=0o600)
    probe.unlink()
    return place


def _key(root: Path) -> bytes:
    path = root / _KEY
    try:
        return path.read_bytes()
    except FileNotFoundError:
        partial = root / f".key-{secrets.token_hex(4)}"
        with open(partial, "xb", opener=files.private) as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
        return path.read_bytes()


def is_remote(place: Path) -> bool:
    """Whether a path is on a filesystem of the network."""
    return filesystem(place) in _REMOTE


def filesystem(place: Path) -> str:
    """The type of the filesystem that holds a path, as the kernel names it; "" if unknown."""
    best, kind = "", ""
    try:
        mounts, inside = (
            _MOUNTS.read_text(encoding="utf-8", errors="replace"),
            f"{place.resolve()}/",
        )
    except OSError:
        return ""
    for line in mounts.splitlines():
        _, mount, name, *_ = line.split(" ")
        mount = _OCTAL.sub(lambda code: chr(int(code[1], 8)), mount)
        if inside.startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, name
    return kind
