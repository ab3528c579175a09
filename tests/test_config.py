from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_plugin.arrays import AuditError
from audit_plugin.config import AuditConfig
from audit_plugin.store import digest_of

FIELDS = dataclasses.fields(AuditConfig)


def test_defaults_are_valid_and_survive_the_way_through_json() -> None:
    config = AuditConfig()
    assert AuditConfig(**json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_every_field_carries_a_help_text_and_a_valid_default(field: dataclasses.Field) -> None:
    assert len(field.metadata["help"]) > 10
    low, high = field.metadata["low"], field.metadata["high"]
    assert low is None or low <= field.default <= high
    assert not field.metadata["choices"] or field.default in field.metadata["choices"]


@pytest.mark.parametrize("field", [f for f in FIELDS if f.metadata["low"] is not None], ids=lambda f: f.name)
def test_bounds_are_part_of_the_range_and_what_lies_beyond_is_named(field: dataclasses.Field) -> None:
    low, high = field.metadata["low"], field.metadata["high"]
    for inside in (low, high):
        fitting = {"trials": 2 * inside} if field.name == "folds" else {}
        assert getattr(AuditConfig(**{field.name: type(field.default)(inside)}, **fitting), field.name) == inside
    for outside in (low - 1, high + 1):
        with pytest.raises(AuditError) as caught:
            AuditConfig(**{field.name: type(field.default)(outside)})
        message = str(caught.value)
        assert field.name in message
        assert str(type(field.default)(outside)) in message
        assert str(high) in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 7}, "trials is 7; .*a multiple of 2 .*: use 8"),
        ({"trials": "8"}, "trials is '8'; it must be of type int"),
        ({"trials": True}, "trials is True; it must be of type int"),
        ({"trials": 8.0}, "trials is 8.0; it must be of type int"),
        ({"encoder": None}, "encoder is None; it must be of type str"),
        ({"false_positive_rate": "0.1"}, "false_positive_rate is '0.1'; it must be of type float"),
        ({"false_positive_rate": float("nan")}, "false_positive_rate is nan; it must lie between"),
        ({"device": "tpu"}, "device is 'tpu'; choose one of auto, cpu, cuda"),
        ({"run": "my run"}, "run key 'my run' is not a valid name"),
        ({"run": ""}, "run key '' is not a valid name"),
        ({"run": "x" * 10_000}, r"run key 'x{20}\.\.\.' has 10,000 characters; use at most 100"),
    ],
)
def test_a_value_that_cannot_work_is_named_with_its_remedy(settings: dict, message: str) -> None:
    with pytest.raises(AuditError, match=message):
        AuditConfig(**settings)


def test_the_scoring_settings_are_those_that_can_change_a_score() -> None:
    scoring = AuditConfig(image="photo", run="other", device="cpu", group="video").scoring()
    assert scoring == AuditConfig().scoring()
    assert {"encoder", "trials", "epochs", "seed"} <= set(scoring)
    assert AuditConfig(seed=1).scoring() != scoring


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(json_values, json_values)
def test_equal_values_and_only_these_share_a_digest(left: object, right: object) -> None:
    assert (digest_of(left) == digest_of(right)) == (
        json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    )


def test_digests_ignore_the_order_of_keys_and_tell_parts_apart() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of("ab", "c") != digest_of("a", "bc")
    assert len(digest_of()) == 64
