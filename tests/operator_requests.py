"""Requests as the App sends them: a form is resolved first, and its hidden fields come back with what is filled in."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

PLUGIN = "@multimem/audit"


def operator(name: str) -> Any:
    return importlib.import_module("fiftyone.operators").get_operator(f"{PLUGIN}/{name}")


def module_of(name: str) -> Any:
    """A module of the plugin, as FiftyOne loaded it."""
    return sys.modules[f"{type(operator('run_audit')).__module__.rpartition('.')[0]}.{name}"]


def request_of(view: Any, params: dict[str, Any], /, **more: Any) -> dict[str, Any]:
    """The body of a request on a dataset or view."""
    return {"dataset_name": view._root_dataset.name, "view": view.view()._serialize(), "params": dict(params), **more}


def form_of(name: str, view: Any, /, **params: Any) -> dict[str, Any]:
    """The form as the App gets it: name -> property."""
    return form_for(name, request_of(view, params))


def form_for(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """The form that a request resolves; {} for an operator without one."""
    from fiftyone.operators.executor import ExecutionContext

    ctx = ExecutionContext({**request, "params": dict(request["params"])}, operator_uri=f"{PLUGIN}/{name}")
    form = operator(name).resolve_type(ctx, "inputs")
    return json.loads(json.dumps(form.to_json()))["type"]["properties"] if form else {}


def hidden_of(form: dict[str, Any]) -> dict[str, Any]:
    """What the hidden fields of a form send."""
    return {"token": form["token"]["default"]} if "token" in form else {}


def filled_in(name: str, view: Any, params: dict[str, Any], /, **more: Any) -> dict[str, Any]:
    """A request with what a person filled in, and the form's token for that."""
    request = request_of(view, params, **more)
    request["params"] |= hidden_of(form_for(name, request))
    return request


def execute(name: str, request: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """Carry a request out; (the operator's results, what the App is told to do)."""
    import asyncio

    from fiftyone.operators.executor import execute_or_delegate_operator

    result = asyncio.run(execute_or_delegate_operator(f"{PLUGIN}/{name}", request))
    if result.error:
        raise AssertionError(result.error)
    if result.is_generator:
        return None, [message.to_json()["body"] for message in result.result]
    steps = result.executor.to_json()["requests"] if result.executor else []
    return result.result, steps


def notices_of(steps: list[dict[str, Any]]) -> list[str]:
    """Messages of the notices among what the App is told to do."""
    return [s["params"]["message"] for s in steps if s["operator_uri"].rpartition("/")[2] == "notify"]
