"""Merge rules: how concurrent writes to one field become its value.

`build_rule` makes a rule from its name and options as they stand in a schema. See `base` for what a rule
is, and docs/merge-rules.md for each of them with a worked example.
"""

from __future__ import annotations

from crdt_sync.rules.base import Rule, RuleError, Shape, ValueRule
from crdt_sync.rules.registry import RULE_NAMES, build_rule, suggest

__all__ = ["RULE_NAMES", "Rule", "RuleError", "Shape", "ValueRule", "build_rule", "suggest"]
