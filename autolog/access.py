"""Which target a journal may be sent to, and whether with the user's credentials.

A journal is untrusted input: whoever made it chose the target that stands in it. The user's
credentials and files go only where he himself sends them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autolog import credentials, targets
from autolog.workspace.address import Workspace, is_workspace, lacks_host


class Denied(Exception):
    """The user has to name the target first; the message says how."""


@dataclass(frozen=True, slots=True)
class Access:
    """A target as it is used for some journal."""

    uri: str
    """With user name and password, where the user's configuration has them."""
    target: str
    """Without, as journals have it."""
    is_trusted: bool
    """Whether the user's credentials, and spooled files, may go there."""

    def environment(self) -> dict[str, str]:
        """The environment for who sends there."""
        return credentials.shipper_environment(self.uri, with_credentials=self.is_trusted)


class Gate:
    """Decides on the target of each journal."""

    def __init__(self, to: str | None, root: Path) -> None:
        """`to` stands in for the target of every journal; `root` is the user's own journal root."""
        self._to = None if to is None else targets.absolute(to)
        self._configured = targets.current().uri
        self._root = root.resolve()

    def admit(self, journal: Path, target: str) -> Access:
        """The access for a journal that goes to a target; raises `Denied`."""
        if self._to is not None:
            return _named(self._to, target)
        if _is_same(self._configured, target):
            return _named(self._configured, target)
        if target.lower().startswith(("http://", "https://")):
            return Access(target, target, is_trusted=False)
        # Of a workspace without its host, Azure itself is asked for that.
        is_safe = targets.is_local(target) or lacks_host(target)
        if is_safe and journal.resolve().is_relative_to(self._root):
            return Access(target, target, is_trusted=True)
        raise Denied(
            f"the journal names {target}, which your configuration does not; if you trust it: "
            f"autolog sync {journal} --to {target}"
        )


def _named(uri: str, target: str) -> Access:
    public = target if _is_same(uri, target) else targets.without_userinfo(uri)
    return Access(uri, public, is_trusted=True)


def _is_same(uri: str, target: str) -> bool:
    if is_workspace(uri) and is_workspace(target):
        return Workspace.parse(uri).is_same(Workspace.parse(target))
    return targets.without_userinfo(uri).rstrip("/") == target.rstrip("/")
