"""Entry point of the FiftyOne plugin.

FiftyOne executes this file anew on every request, and pytest imports it as a package: it does nothing until
it is called.
"""

from __future__ import annotations

from typing import Any


def register(p: Any) -> None:
    """Registers the plugin's operators and panels with FiftyOne."""
    import importlib.util
    import os
    import sys

    root = os.path.dirname(os.path.realpath(__file__))  # plugin folders are often symlinks
    in_checkout = os.path.isdir(os.path.join(root, "audit_plugin"))
    if in_checkout and importlib.util.find_spec("audit_plugin") is None:
        sys.path.append(root)  # at the end, so that nothing of ours hides somebody else's module

    if "fiftyone.brain" in sys.modules:  # as in the App's server; importing it takes half a second
        from audit_plugin.fiftyone_io import similarity  # noqa: F401 (its import registers the similarity backend)

    from .operators import CLASSES

    for cls in CLASSES:
        p.register(cls)
