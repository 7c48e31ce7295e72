"""Values that break careless exporters; the first rows of the sample data contain all of them."""

# Free text of users, models and files.
TEXTS: tuple[str, ...] = (
    "",
    " leading and trailing ",
    'a "quoted" word, a comma; a semicolon',
    "it's `code` \\ back\\slash",
    "two\nlines",
    "carriage\rreturn",
    "windows\r\nlines\r\n",
    "a\ttab",
    "\n",
    "control \x01 \x0b \x0c \x1b[31m \x7f",
    "zero\x00byte",
    "line\u2028and paragraph\u2029separators",
    "\ufeffbyte order mark",
    "你好，世界。日本語のテキスト。한국어",  # noqa: RUF001 (intended)
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇺🇳 👍🏽 𝒳",  # noqa: RUF001 (intended)
    "مرحبا بالعالم שלום \u202eesrever\u202c",
    "e\u0301 n\u0303 Z\u0351\u036b\u0343a\u0337l\u0338g\u0336o\u0338",
    "=1+1",
    "+49 30 123456",
    "-5",
    "-5.25e3",
    "-2+3",
    "@SUM(A1:A9)",
    '=HYPERLINK("https://example.com","click")',
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "NULL",
    "\\N",
    "<script>alert(1)</script> &amp; ]]>",
    "'; DROP TABLE traces; --",
    "%s %d {0} ${HOME} {{name}} {% if %}",
)

# Text that is JSON, nearly JSON, or looks like it.
JSON_TEXTS: tuple[str, ...] = (
    "null",
    "true",
    "123",
    "-0",
    "1e400",
    "9007199254740993",
    '"just a string"',
    "[]",
    "{}",
    "[1,2.50,1E3,12345678901234567890,0.1000000000000000055511151231257827]",
    '{"max":18446744073709551615,"min":-9223372036854775808,"exact":3.14159265358979323846264338}',
    '{"twice":1,"twice":2}',
    '{"nested":{"list":[{"deep":[[[{"deeper":null}]]]}]},"empty":"","no":false}',
    '{"escaped":"caf\\u00e9 \\u4e2d\\u6587 \\ud83d\\ude00"}',
    '{"path":"C:\\\\users\\\\u0041","after":"\\\\\\u00e9"}',
    '{"must stay":"\\u0022 \\u005c \\u000a \\u0000 \\u001f"}',
    '{"lone surrogate":"\\ud800","pair":"\\uD83D\\uDE00","reversed":"\\ude00\\ud83d"}',
    '{"key \\u00fc":1,"":2,"a,b":3,"=1":4}',
    '{ "pretty" :\r\n  [ 1,\n\t2 ]\n}\n',
    '{"cut": "of',
    "{'python': True, 'none': None}",
    '{"number": NaN}',
    "NaN",
    '{"a":1} trailing',
    '"\\u00e9"',
    "\\u00e9 outside of JSON, \\\\u00e9 and \\ alone",
)

UNICODE: tuple[str, ...] = (
    "Grüße aus Köln",
    "你好",
    "こんにちは",
    "مرحبا",
    "שלום",
    "Привет",
    "🎉🚀",
    "naïve cafe\u0301",
    "ไทย",
)

NAMES: tuple[str, ...] = (
    "",
    "with,comma",
    'with"quote',
    "=cmd|' /C calc'!A0",
    "日本語",
    "two\nlines",
    "🦄",
    "-start",
    " ",
)

METADATA: tuple[dict[str, str], ...] = (
    {},
    {"": "an empty key"},
    {"empty": ""},
    {"a,b": "comma", 'a"b': "quote", "a\nb": "newline", "😀": "emoji", "=key": "=value"},
    {"json": '{"a":[1,2,{"b":null}]}', "number": "12345678901234567890", "text": "plain", "escaped": '"\\u00e9"'},
    {"evaluator_id": "evaluator-1", "evaluation_rule_id": "rule-1", "job_configuration_id": "job-1"},
    {"user.name": "O'Brien \\ Söhne", "cut": '{"a":'},
)

TAGS: tuple[tuple[str, ...], ...] = (
    (),
    ("",),
    ("with,comma", 'with"quote', "with'apostrophe", "back\\slash"),
    ("日本語", "🦄", "two\nlines", "=1+1"),
    ("same", "same"),
)
