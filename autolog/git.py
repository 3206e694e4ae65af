"""What git has checked out in a folder, read from its files: no process is started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_SECTION = re.compile(r'\s*\[\s*remote\s+"')
_URL = re.compile(r"\s*url\s*=\s*(.*?)\s*$")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_MOST_SYMBOLIC = 5
_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")
"""What tells an environment, whose programs are no part of the repository it may lie in."""


class Checkout(NamedTuple):
    """The state of a working tree."""

    commit: str
    branch: str | None
    """None where a commit is checked out, and no branch."""
    url: str | None
    """Of the first remote, as it is configured: it may hold a password."""


def checkout(folder: Path) -> Checkout | None:
    """What is checked out in the working tree that a folder belongs to.

    None outside of one, before the first commit, and in formats that keep no files for references.
    """
    git = _git_folder(folder)
    if git is None:
        return None
    common = git / (_read(git / "commondir") or ".")
    head = _read(git / "HEAD")
    commit = _commit(head, git, common)
    if commit is None:
        return None
    branch = head.removeprefix("ref: refs/heads/") if head.startswith("ref: ") else None
    return Checkout(commit, branch, _url(common / "config"))


def _git_folder(folder: Path) -> Path | None:
    """The folder with the ``HEAD``; in a linked working tree there is a file that names it."""
    for root in (folder, *folder.parents):
        if any((root / mark).exists() for mark in _ENVIRONMENT):
            return None
        git = root / ".git"
        if git.is_file():
            git = root / _read(git).removeprefix("gitdir: ")
        if (git / "HEAD").is_file():
            return git
    return None


def _commit(head: str, git: Path, common: Path) -> str | None:
    """The commit that a ``HEAD`` names, through as many references as it takes."""
    for _ in range(_MOST_SYMBOLIC):
        if not head.startswith("ref: "):
            break
        name = head.removeprefix("ref: ")
        head = _read(git / name) or _read(common / name) or _packed(common, name)
    return head if _COMMIT.fullmatch(head) else None


def _packed(common: Path, name: str) -> str:
    lines = _read(common / "packed-refs").splitlines()
    return next((line.partition(" ")[0] for line in lines if line.endswith(f" {name}")), "")


def _url(config: Path) -> str | None:
    is_remote = False
    for line in _read(config).splitlines():
        if line.lstrip().startswith("["):
            is_remote = _SECTION.match(line) is not None
        elif is_remote and (found := _URL.match(line)):
            return found[1].strip('"')
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
