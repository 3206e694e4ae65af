"""Wrapping and unwrapping, and the switchboard that turns integrations on and off."""

from __future__ import annotations

import functools
import json
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import run_script

from autolog import hooks


class Base:
    def method(self) -> str:
        return "base"


class Derived(Base):
    pass


def _louder(original: Callable[..., str]) -> Callable[..., str]:
    def louder(*args: Any) -> str:
        return original(*args).upper()

    return louder


def test_an_own_attribute_comes_back_exactly() -> None:
    """After unwrap the class has the very object it had."""
    before = vars(Base)["method"]
    hooks.wrap(Base, "method", _louder)
    assert Base().method() == "BASE"
    assert Base.method.__name__ == "method"
    hooks.unwrap(Base, "method")
    assert vars(Base)["method"] is before


def test_an_inherited_attribute_is_inherited_again() -> None:
    """Wrapping in a subclass leaves the base alone, and unwrap leaves nothing in the subclass."""
    hooks.wrap(Derived, "method", _louder)
    assert (Derived().method(), Base().method()) == ("BASE", "base")
    hooks.unwrap(Derived, "method")
    assert "method" not in vars(Derived)
    assert Derived().method() == "base"


def test_a_module_function_comes_back_exactly() -> None:
    """Modules are wrapped as classes are."""
    module = types.ModuleType("toy")
    module.speak = lambda: "word"  # type: ignore[attr-defined]
    before = module.speak
    hooks.wrap(module, "speak", _louder)
    assert module.speak() == "WORD"
    hooks.unwrap(module, "speak")
    assert module.speak is before


def test_wrapping_twice_is_once() -> None:
    """A second wrap changes nothing, and one unwrap undoes both."""
    before = vars(Base)["method"]
    hooks.wrap(Base, "method", _louder)
    once = vars(Base)["method"]
    hooks.wrap(Base, "method", _louder)
    assert vars(Base)["method"] is once
    hooks.unwrap(Base, "method")
    assert vars(Base)["method"] is before


def test_a_foreign_wrapper_on_top_stays() -> None:
    """Who wrapped ours keeps his wrapper; wrapping again finds ours below and adds no second."""

    class Victim:
        def method(self) -> str:
            return "base"

    hooks.wrap(Victim, "method", _louder)
    ours = Victim.method

    @functools.wraps(ours)
    def foreign(self: Victim) -> str:
        return f"<{ours(self)}>"

    Victim.method = foreign  # type: ignore[method-assign]
    hooks.unwrap(Victim, "method")
    assert Victim.method is foreign
    assert Victim().method() == "<BASE>"
    hooks.wrap(Victim, "method", _louder)
    assert Victim.method is foreign


def test_what_was_replaced_since_is_not_ours_to_undo() -> None:
    """An attribute that somebody set anew after us is left as he set it."""

    class Victim:
        def method(self) -> str:
            return "base"

    hooks.wrap(Victim, "method", _louder)
    Victim.method = lambda self: "new"  # type: ignore[method-assign]
    hooks.unwrap(Victim, "method")
    assert Victim().method() == "new"


def test_unwrapping_what_was_never_wrapped_does_nothing() -> None:
    """``unwrap`` is safe to call at any time."""
    before = dict(vars(Base))
    hooks.unwrap(Base, "method")
    assert dict(vars(Base)) == before


# -- the switchboard, each order in a process of its own -----------------------------------------

_FRAMEWORK = "class Model:\n    def fit(self):\n        return 'fitted'\n"
_INTEGRATION = """
from autolog import hooks
def instrument(module):
    hooks.wrap(module.Model, "fit", lambda original: lambda self: original(self) + " and logged")
    global wrapped
    wrapped = module.Model
def uninstrument():
    hooks.unwrap(wrapped, "fit")
"""
_BROKEN = """
def instrument(module):
    raise RuntimeError("broken integration")
def uninstrument():
    raise RuntimeError("broken too")
"""


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """The environment of a program with a framework and integrations of another package."""
    site = tmp_path / "site"
    metadata = site / "toy_autolog-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "toyframe.py").write_text(_FRAMEWORK)
    (site / "sadframe.py").write_text(_FRAMEWORK)
    (site / "goneframe.py").write_text(_FRAMEWORK)
    (site / "toy_autolog.py").write_text(_INTEGRATION)
    (site / "sad_autolog.py").write_text(_BROKEN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-autolog\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[autolog.integrations]\n"
        "toyframe = toy_autolog\n"
        "sadframe = sad_autolog\n"
        "goneframe = not_installed.anywhere:thing\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}


ORDERS = {
    "enable import": (["enable", "import"], True),
    "import enable": (["import", "enable"], True),
    "import": (["import"], False),
    "enable import disable": (["enable", "import", "disable"], False),
    "enable disable import": (["enable", "disable", "import"], False),
    "import enable disable enable": (["import", "enable", "disable", "enable"], True),
    "enable disable enable import": (["enable", "disable", "enable", "import"], True),
    "enable disable import enable": (["enable", "disable", "import", "enable"], True),
    "enable enable import disable": (["enable", "enable", "import", "disable"], False),
    "disable import disable": (["disable", "import", "disable"], False),
}


@pytest.mark.parametrize(("steps", "logged"), ORDERS.values(), ids=ORDERS)
def test_enable_and_disable_work_in_every_order(
    steps: list[str], logged: bool, site: dict[str, str], tmp_path: Path
) -> None:
    """Whatever came first, a fit is logged exactly while autolog is on; off, all is as it was."""
    actions = {
        "enable": 'autolog.enable(mode="offline", silent=True)',
        "disable": "autolog.disable()",
        "import": "import toyframe; original = original or vars(toyframe.Model)['fit']",
    }
    lines = ["import autolog", "original = None", *(actions[step] for step in steps)]
    lines += [
        "print(toyframe.Model().fit())",
        "print(autolog.status()['instrumented'])",
        "autolog.disable()",
        "assert toyframe.Model().fit() == 'fitted'",
        f"assert {steps[0] == 'enable'} or vars(toyframe.Model)['fit'] is original",
    ]
    done = run_script("\n".join(lines), cwd=tmp_path, env=site)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == (
        ["fitted and logged", "['toyframe']"] if logged else ["fitted", "[]"]
    )


@pytest.mark.parametrize("strict", ["0", "1"])
def test_a_broken_integration_breaks_no_import(
    strict: str, site: dict[str, str], tmp_path: Path
) -> None:
    """Modules whose integration raises, or cannot be found, import as if there were none."""
    done = run_script(
        """
        import json
        import autolog
        autolog.enable(mode="offline")
        import sadframe, goneframe, toyframe
        print(json.dumps([m.Model().fit() for m in (sadframe, goneframe, toyframe)]))
        print(json.dumps(sorted(autolog.status()["internal_errors"])))
        autolog.disable()
        """,
        cwd=tmp_path,
        env={**site, "AUTOLOG_STRICT": strict},
    )
    assert done.returncode == 0, done.stderr
    fits, errors = map(json.loads, done.stdout.splitlines())
    assert fits == ["fitted", "fitted", "fitted and logged"]
    assert errors == ["instrument goneframe", "instrument sadframe"]
    assert "broken integration" in done.stderr


def test_installed_but_not_enabled_does_nothing(tmp_path: Path) -> None:
    """``import autolog`` alone replaces nothing in sys and imports no integration."""
    done = run_script(
        """
        import sys
        before = sys.exit, sys.excepthook
        import autolog
        assert (sys.exit, sys.excepthook) == before
        autolog.enable(mode="offline")
        assert (sys.exit, sys.excepthook) == before
        with autolog.run("r"):
            assert (sys.exit, sys.excepthook) != before
        assert (sys.exit, sys.excepthook) == before
        assert not [name for name in sys.modules if name.startswith("autolog.callbacks.")]
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
