"""Schemas that load, and every problem of those that do not, word for word with line and column."""

from __future__ import annotations

import pytest

from crdt_sync.errors import SchemaError
from crdt_sync.roles import Role
from crdt_sync.rules.register import ClientWins, Register
from crdt_sync.schemas import RecordSchema, load_schema
from crdt_sync.schemas.builtin import SCHEMA_TYPE, schema_type
from crdt_sync.schemas.loader import without_comments

HEAD = "x-type: pump\nproperties:\n"
"""Two lines; what follows is on line 3."""
GOOD = HEAD + "  a: {type: string}\n"
"""Three lines; what follows is on line 4."""


def load(text: str) -> RecordSchema:
    return load_schema(text, source="pump.yaml")


def problems(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(SchemaError) as caught:
        load(text)
    assert all(problem.source == "pump.yaml" for problem in caught.value.problems)
    return [(problem.line, problem.column, problem.message) for problem in caught.value.problems]


TYPES = "string, integer, number, boolean, array, object, null"
RULES = "register, client_wins, server_wins, manual, set, rows, counter, max, min, once, text"
FORMATS = (
    "date, date-time, time, duration, email, hostname, ipv4, ipv6, uri, uri-reference, uuid, "
    "json-pointer, regex"
)
ADD = "devices that are apart add to it"
ROWS_NEED = "rows need the fields of a row: additionalProperties: {type: object, properties: {…}}"
NO_LOOK = "is not a regular expression (look-around is not supported)"
NO_REFERENCES = "references are not supported; write it out"
SNAKE = "x-type must be in snake case: a letter, then letters a-z, digits and _, at most 64 in all"
FIELD_NAME = "cannot be a field's name: a letter, then letters, digits and _, at most 64 in all"

NOT_YAML = [
    ("", 1, 1, "the file is empty"),
    ("# nothing\n", 1, 1, "the file is empty"),
    ("just text", 1, 1, "a schema is a mapping of keywords, such as `x-type: work_order`"),
    ("- a\n", 1, 1, "a schema is a mapping of keywords, such as `x-type: work_order`"),
    ("a: [1,\n", 2, 1, "not YAML: did not find expected node content"),
    ("\ta: 1\n", 1, 1, "not YAML: found character that cannot start any token"),
    ("a: b: c\n", 1, 5, "not YAML: mapping values are not allowed in this context"),
    ("x: 1\ny: 'no end\n", 3, 1, "not YAML: found unexpected end of stream"),
    ("x: 1\ny: \x00\n", 2, 4, "the character U+0000 cannot stand in YAML"),
    ("x: 1\ny: \ud800\n", 2, 4, "the character U+D800 cannot stand in YAML"),
    (GOOD + "x-type: pump\n", 4, 1, "'x-type' stands here a second time; it is on line 1 already"),
    ("x-type: &p pump\nproperties: {a: {}}\n", 1, 9, "anchors (&name) are not supported"),
    ("x-type: pump\nproperties: {a: *p}\n", 2, 17, "aliases (*name) are not supported; write it out"),
    ("<<: {a: 1}\n" + GOOD, 1, 1, "merge keys (<<) are not supported; write it out"),
    ("title: !!python/name:os x\n" + GOOD, 1, 8, "tags (!!python/name:os) are not supported"),
    (GOOD + "---\na: 1\n", 4, 1, "a second document in one file; a file has one record type"),
    ("? [a]\n: 1\n", 1, 3, "a key must be a word, not a list or a mapping"),
    ("x-type: " + "[" * 100_000, 1, 40, "nested more than 32 levels deep"),
    (GOOD + "# " + "x" * 262_144, 1, 1, "the file is larger than 256 KiB"),
    (GOOD + "description: 99999999999999999999\n", 4, 14, "too large a whole number; 64 bits are the most"),
    (HEAD + "  a: {type: number, maximum: .inf}\n", 3, 30, "not a finite number"),
    (HEAD + "  a: {type: number, maximum: 1e999}\n", 3, 30, "not a finite number"),
]

RECORD_TYPE = [
    ("properties: {a: {}}\n", 1, 1, "x-type is missing: the name of the record type, such as work_order"),
    ("x-type: pump\n", 1, 1, "properties is missing: the fields of the record type"),
    ("x-type: Pump\nproperties: {a: {}}\n", 1, 9, SNAKE),
    ("x-type: _schema\nproperties: {a: {}}\n", 1, 9, SNAKE),
    ("x-type: 3\nproperties: {a: {}}\n", 1, 9, "x-type must be a name, such as work_order"),
    (GOOD + "x-version: 0\n", 4, 12, "x-version must be a whole number from 1"),
    (GOOD + "x-version: one\n", 4, 12, "x-version must be a whole number from 1"),
    (GOOD + "$schema: x\n", 4, 10, "$schema must be https://json-schema.org/draft/2020-12/schema"),
    (GOOD + "type: array\n", 4, 7, "a record's type must be object"),
    (
        GOOD + "additionalProperties: true\n",
        4, 23, "additionalProperties can only be false: a record has the fields it declares",
    ),
    (GOOD + "titel: x\n", 4, 1, "unknown keyword 'titel'; did you mean 'title'?"),
    (GOOD + "x-deleted: x\n", 4, 1, "unknown keyword 'x-deleted'; did you mean 'x-delete'?"),
    (GOOD + "x-marge: x\n", 4, 1, "unknown keyword 'x-marge'"),
    (GOOD + "$defs: {}\n", 4, 1, f"$defs cannot stand here: {NO_REFERENCES}"),
    (GOOD + "enum: [a]\n", 4, 1, "enum cannot stand here: it belongs to a field"),
    (GOOD + "title: 3\n", 4, 8, "title takes text, got the number 3"),
    ("x-type: pump\nproperties: []\n", 2, 13, "properties must be a mapping of field names to their schemas"),
    ("x-type: pump\nproperties: {}\n", 2, 13, "properties must be a mapping of field names to their schemas"),
    (GOOD + "required: [other]\n", 4, 12, "required names 'other', which is not in properties"),
    (
        HEAD + "  title: {}\nrequired: [titel]\n",
        4, 12, "required names 'titel', which is not in properties; did you mean 'title'?",
    ),
    (GOOD + "required: a\n", 4, 11, "required must be a list of field names, such as [title]"),
    (GOOD + "required: [[a]]\n", 4, 12, "required must be a list of field names, such as [title]"),
    (GOOD + "required: [a, a]\n", 4, 11, "required has an element twice"),
]  # fmt: skip

DELETING = [
    ("edit_win", 11, "the delete rules are edit_wins, delete_wins and manual; did you mean 'edit_wins'?"),
    ("{rule: later}", 18, "the delete rules are edit_wins, delete_wins and manual"),
    ("{role: [admin]}", 12, "x-delete has no option 'role'; did you mean 'roles'?"),
    ("{roles: admin}", 19, "roles must be a list of roles, such as [office, admin]"),
    ("{roles: []}", 19, "roles must be a list of roles, such as [office, admin]"),
    ("{roles: [boss]}", 20, "unknown role 'boss'; the roles are field, office, supervisor, admin"),
    ("{roles: [offic]}", 20, "unknown role 'offic'; did you mean 'office'?"),
    ("{roles: [[admin]]}", 20, "a role must be a word; the roles are field, office, supervisor, admin"),
    ("{roles: [reader]}", 20, "a reader may not write, so it cannot delete"),
    ("[edit_wins]", 11, "x-delete must be a rule's name, or a mapping of rule and roles"),
]

FIELDS = [
    ("a b: {type: string}", 3, f"'a b' {FIELD_NAME}"),
    ("_sync: {type: string}", 3, f"'_sync' {FIELD_NAME}"),
    ("id: {type: string}", 3, "'id' cannot be a field's name: every record has its own id"),
    ("a: string", 6, "a must be a mapping of keywords, such as {type: string}"),
    ("a: {type: strng}", 13, "unknown type 'strng'; did you mean 'string'?"),
    ("a: {type: [string, nul]}", 22, "unknown type 'nul'; did you mean 'null'?"),
    ("a: {type: 3}", 13, f"unknown type 3; the types are {TYPES}"),
    ("a: {type: [[string]]}", 14, f"a type must be a word; the types are {TYPES}"),
    ("a: {type: []}", 13, "the list of types is empty"),
    ("a: {maxLenght: 3}", 7, "unknown keyword 'maxLenght'; did you mean 'maxLength'?"),
    ("a: {maxLength: -1}", 18, "maxLength must be at least 0, got -1"),
    ("a: {maxLength: three}", 18, "maxLength takes a whole number, got text ('three')"),
    ("a: {pattern: '('}", 16, f"pattern '(' {NO_LOOK}"),
    ("a: {pattern: '(?=a)b'}", 16, f"pattern '(?=a)b' {NO_LOOK}"),
    ("a: {format: dat}", 15, "unknown format 'dat'; did you mean 'date'?"),
    ("a: {format: 3}", 15, f"unknown format 3; the formats are {FORMATS}"),
    ("a: {enum: []}", 13, "the enum is empty, so no value would be allowed"),
    ("a: {enum: [x, y, x]}", 20, "'x' stands twice in the enum"),
    ("a: {enum: x}", 13, "enum takes a list, got text ('x')"),
    ("a: {$ref: 'http://a.b/c'}", 7, f"$ref cannot stand here: {NO_REFERENCES}"),
    ("a: {unevaluatedItems: false}", 7, "unevaluatedItems cannot stand here: it is not supported"),
    ("a: {x-type: b}", 7, "x-type cannot stand here: it belongs to the record type"),
    (
        "a: {properties: {b: {x-merge: register}}}",
        24,
        "x-merge cannot stand here: a rule belongs to a field, not to a part of its value; "
        "use rows to merge the parts",
    ),
    ("a: {properties: {b: {typ: string}}}", 24, "unknown keyword 'typ'; did you mean 'type'?"),
    ("a: {properties: {b: 3}}", 23, "b must be a schema, such as {type: string}"),
    ("a: {items: {type: strin}}", 21, "unknown type 'strin'; did you mean 'string'?"),
    ("a: {items: [1]}", 14, "items must be a schema, such as {type: string}"),
    ("a: {anyOf: [{format: dat}]}", 24, "unknown format 'dat'; did you mean 'date'?"),
    ("a: {contentEncoding: base32}", 24, "contentEncoding can only be base64"),
    ("a: {type: number, contentEncoding: base64}", 38, "a field with contentEncoding must have type: string"),
    (
        "a: {type: string, contentEncoding: base64, maxLength: 4}",
        46, "maxLength cannot stand here: only the encoding of bytes can be declared",
    ),
    (
        "a: {type: string, contentEncoding: base64, default: abcd}",
        46, "default cannot stand here: bytes and rows have none",
    ),
    ("a: {type: integer, default: x}", 31, "default: takes a whole number, got text ('x')"),
    ("a: {enum: [x, y], default: z}", 30, "default: 'z' is not one of x, y"),
]  # fmt: skip

MERGING = [
    ("a: {x-merge: clientwins}", 16, "unknown rule 'clientwins'; did you mean 'client_wins'?"),
    ("a: {x-merge: magic}", 16, f"unknown rule 'magic'; the rules are {RULES}"),
    ("a: {x-merge: [register]}", 16, f"x-merge must name a rule; the rules are {RULES}"),
    ("a: {x-merge: }", 16, f"x-merge must name a rule; the rules are {RULES}"),
    ("a: {x-merge: {prefer: [admin]}}", 16, "x-merge needs the name of a rule: rule: register"),
    ("a: {x-merge: {rule: regster}}", 23, "unknown rule 'regster'; did you mean 'register'?"),
    (
        "a: {x-merge: {rule: register, prefer: [boss]}}",
        33,
        "option 'prefer' of rule 'register': there is no role 'boss'; "
        "the roles are field, office, supervisor, admin, reader",
    ),
    (
        "a: {x-merge: {rule: register, prefers: [admin]}}",
        33, "rule 'register' has no option 'prefers'; its options are prefer, order",
    ),
    ("a: {enum: [x, y], x-merge: {rule: register, order: [x, z]}}", 58, "order: 'z' is not one of x, y"),
    (
        "a: {type: string, x-merge: counter}",
        30, "rule 'counter' needs a field of type integer or number, not string",
    ),
    ("a: {type: string, x-merge: set}", 30, "rule 'set' needs a field of type array, not string"),
    (
        "a: {type: string, format: time, x-merge: max}",
        44, "rule 'max' needs a field of type integer or number, or string with format date or date-time, "
        "not string",
    ),
    (
        "a: {type: string, anyOf: [{format: date}, {maxLength: 3}], x-merge: min}",
        71, "rule 'min' needs a field of type integer or number, or string with format date or date-time, "
        "not string",
    ),
    (
        "a: {type: string, contentEncoding: base64, x-merge: max}",
        55, "rule 'max' needs a field of type integer or number, or string with format date or date-time, "
        "not string",
    ),
    (
        "a: {type: string, contentEncoding: base64, x-merge: text}",
        21, "rule 'text' is not for bytes",
    ),
    (
        "a: {type: string, x-merge: text, pattern: x}",
        36, "pattern cannot stand here: devices that are apart write into it, "
        "so only its length can be checked",
    ),
    ("a: {type: integer, x-merge: text}", 31, "rule 'text' needs a field of type string, not integer"),
    (
        "a: {x-merge: once, default: 1}",
        22, "default cannot stand here: it would fill the field for good",
    ),
    (
        "a: {x-merge: {rule: once, correct: [reader]}}",
        29, "option 'correct' of rule 'once': a reader never writes",
    ),
    ("a: {type: array, x-merge: rows}", 29, "rule 'rows' needs a field of type object, not array"),
    ("a: {x-merge: counter}", 16, "rule 'counter' needs a field of type integer or number, not any type"),
    (
        "a: {type: number, x-merge: counter, minimum: 0}",
        39, f"minimum cannot stand here: {ADD}, so only the type of each amount can be checked",
    ),
    (
        "a: {type: array, x-merge: set, maxItems: 3}",
        34, f"maxItems cannot stand here: {ADD}, so only each element can be checked (under items)",
    ),
    ("a: {type: array, x-merge: set, items: true}", 41, "items must be a schema, such as {type: string}"),
    ("a: {type: object, x-merge: rows}", 6, ROWS_NEED),
    ("a: {type: object, x-merge: rows, additionalProperties: {type: object}}", 58, ROWS_NEED),
    (
        "a: {type: object, x-merge: rows, minProperties: 1, additionalProperties: {properties: {b: {}}}}",
        36,
        "minProperties cannot stand here: devices that are apart add rows, "
        "so only each row can be checked (under additionalProperties)",
    ),
    (
        "a: {type: object, x-merge: rows, additionalProperties: {required: [b], properties: {b: {}}}}",
        59, "required cannot stand here: its fields are written one by one",
    ),
    (
        "a: {type: object, x-merge: rows, additionalProperties: {properties: {b: {default: 1}}}}",
        76, "default cannot stand here: a row has b once it is written",
    ),
    (
        "a: {type: object, x-merge: rows, additionalProperties: {type: array, properties: {b: {}}}}",
        65, "a row's type must be object",
    ),
    (
        "a: {type: object, x-merge: rows, "
        "additionalProperties: {additionalProperties: 1, properties: {b: {}}}}",
        81, "additionalProperties can only be false: a row has the fields it declares",
    ),
]  # fmt: skip

TRANSITIONS = [
    (
        "a: {type: string, x-transitions: {x: [y]}}",
        21, "x-transitions needs a field of type string with an enum of its values",
    ),
    (
        "a: {enum: [x, y], x-transitions: [x, y]}",
        36, "x-transitions must map each value to the list of those that may follow",
    ),
    ("a: {enum: [x, y], x-transitions: {x: y}}", 40, "what may follow x must be a list, such as [y]"),
    (
        "a: {enum: [x, y], x-transitions: {x: [[]]}}",
        41, "x-transitions names a list, which is not in the enum",
    ),
    (
        "a: {enum: [red, green], x-transitions: {red: [gren]}}",
        49, "x-transitions names 'gren', which is not in the enum; did you mean 'green'?",
    ),
    (
        "a: {enum: [red, green], x-transitions: {gree: [red]}}",
        43, "x-transitions names 'gree', which is not in the enum; did you mean 'green'?",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "message"), NOT_YAML + RECORD_TYPE)
def test_a_problem_of_the_file_is_named_where_it_stands(
    text: str, line: int, column: int, message: str
) -> None:
    assert problems(text) == [(line, column, message)]


@pytest.mark.parametrize(("policy", "column", "message"), DELETING)
def test_a_problem_of_the_delete_policy_is_named_where_it_stands(
    policy: str, column: int, message: str
) -> None:
    assert problems(f"{GOOD}x-delete: {policy}\n") == [(4, column, message)]


@pytest.mark.parametrize(("field", "column", "message"), FIELDS + MERGING + TRANSITIONS)
def test_a_problem_of_a_field_is_named_where_it_stands(field: str, column: int, message: str) -> None:
    assert problems(f"{HEAD}  {field}\n") == [(3, column, message)]


def test_all_problems_of_a_file_are_listed_by_line() -> None:
    text = """\
x-type: pump
x-version: zero
properties:
  status: {type: string, enum: [open, done], x-merge: registre}
  note:
    type: text
    maxlength: 10
  parts:
    type: object
    x-merge: rows
    additionalProperties: {type: object, properties: {qty: {type: number, minimum: few}}}
required: [notes]
"""
    with pytest.raises(SchemaError) as caught:
        load(text)
    assert str(caught.value).splitlines() == [
        "pump.yaml:2:12: x-version must be a whole number from 1",
        "pump.yaml:4:55: unknown rule 'registre'; did you mean 'register'?",
        f"pump.yaml:6:11: unknown type 'text'; the types are {TYPES}",
        "pump.yaml:11:84: minimum takes a number, got text ('few')",
        "pump.yaml:12:12: required names 'notes', which is not in properties; did you mean 'note'?",
    ]
    assert caught.value.hint == "correct the file and run `crdt-sync schema check FILE`"


def test_rows_in_rows_have_a_limit() -> None:
    field: str = "{type: string}"
    for _ in range(3):
        row = f"{{type: object, properties: {{a: {field}}}}}"
        field = f"{{type: object, x-merge: rows, additionalProperties: {row}}}"
    schema = load(f"{HEAD}  a: {field}\n")
    assert schema.field_at(("a", "1", "a", "2", "a", "3", "a")).types == ("string",)
    row = f"{{type: object, properties: {{a: {field}}}}}"
    too_deep = f"{{type: object, x-merge: rows, additionalProperties: {row}}}"
    assert [message for _, _, message in problems(f"{HEAD}  a: {too_deep}\n")] == [
        "rows cannot be more than 3 deep in each other"
    ]


def test_a_minimal_schema_has_the_defaults_of_the_product() -> None:
    schema = load(GOOD)
    assert (schema.type, schema.version, schema.title) == ("pump", 1, "pump")
    assert schema.text == GOOD
    assert schema.required == ()
    assert schema.delete.rule == "edit_wins"
    assert [role for role in Role if schema.delete.may_delete(role)] == [
        Role.FIELD,
        Role.OFFICE,
        Role.SUPERVISOR,
        Role.ADMIN,
    ]
    spec = schema.fields["a"]
    assert isinstance(spec.rule, Register)
    assert (spec.name, spec.title, spec.shape, spec.types) == ("a", "a", "value", ("string",))


def test_rules_come_with_their_options() -> None:
    schema = load(
        HEAD
        + "  a: {type: string, x-merge: {rule: register, prefer: [supervisor, office]}}\n"
        + "  b: {type: string, x-merge: client_wins}\n"
        + "x-delete: {rule: delete_wins, roles: [office]}\n"
    )
    rule = schema.fields["a"].rule
    assert isinstance(rule, Register)
    assert rule.prefer == (Role.SUPERVISOR, Role.OFFICE)
    assert isinstance(schema.fields["b"].rule, ClientWins)
    assert schema.delete.rule == "delete_wins"
    assert schema.delete.roles == {Role.OFFICE}


def test_scalars_follow_yaml_1_2() -> None:
    schema = load(HEAD + "  a: {enum: [no, on, Yes, 0o17, 012, 12:30, 1_000, 2001-01-01, '1', 1.0, ~]}\n")
    assert schema.fields["a"].json_schema["enum"] == [
        "no", "on", "Yes", 15, 12, "12:30", "1_000", "2001-01-01", "1", 1.0, None,
    ]  # fmt: skip


def test_keys_are_the_words_they_look_like() -> None:
    schema = load(HEAD + "  no: {enum: [on, off], x-transitions: {on: [off], off: [on]}}\n")
    assert schema.fields["no"].transitions == {"on": ("off",), "off": ("on",)}


def test_windows_line_ends_and_a_byte_order_mark_are_no_problem() -> None:
    assert load("\ufeff" + GOOD.replace("\n", "\r\n")).type == "pump"


def test_the_type_of_schemas_is_reserved_and_only_admins_write_it() -> None:
    schema = schema_type()
    assert schema.type == SCHEMA_TYPE == "_schema"
    assert list(schema.fields) == ["source", "writers", "deleters"]
    assert schema.required == ("source",)
    assert schema.write_roles == schema.delete.roles == {Role.ADMIN}
    assert schema.fields["source"].check(GOOD, "source") == GOOD


def test_a_schema_travels_without_its_comments() -> None:
    text = "# for\nx-type: job\n\nx-version: 1\n  # in\ntype: object\nproperties:\n  a: {type: string} # b\n"
    assert without_comments(text) == (
        "x-type: job\nx-version: 1\ntype: object\nproperties:\n  a: {type: string} # b\n"
    )


def test_prose_that_looks_like_a_comment_travels_as_it_is() -> None:
    text = "x-type: job\ndescription: |\n  Steps:\n  # 1 isolate\n\n  # 2 open\n"
    assert without_comments(text) == text
    assert without_comments("a: [") == "a: ["
