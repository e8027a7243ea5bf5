"""`model` and `stream`: found wherever they stand, spliced without touching anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.edits import make_edits
from router.refused import RefusedError
from router.request import find_entries, read_json, read_multipart, rewritten

QUICK = settings(max_examples=50, deadline=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8) | st.just('{"model":"x"}'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", ""]), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip
MEMBERS = st.dictionaries(st.text(max_size=6).filter(lambda key: key != "model"), JSON, max_size=5)
LAYOUTS = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])


def body_of(members: dict[str, Any], layout: dict[str, Any], *, view: bool) -> bytes | memoryview:
    raw = json.dumps(members, **layout).encode("utf-8", "surrogatepass")
    return memoryview(bytearray(raw) + b"garbage")[: len(raw)] if view else raw


def code_of(body: bytes) -> str:
    with pytest.raises(RefusedError) as caught:
        read_json(body)
    assert caught.value.refusal.status == 400
    return caught.value.refusal.code


@QUICK
@given(MEMBERS, st.text(min_size=1, max_size=10), st.integers(0, 5), LAYOUTS, st.booleans())
def test_splicing_changes_the_models_value_and_nothing_else(
    members: dict[str, Any], name: str, position: int, layout: dict[str, Any], view: bool
) -> None:
    items = list(members.items())
    items.insert(min(position, len(items)), ("model", name))
    whole = dict(items)
    body = body_of(whole, layout, view=view)
    asked = read_json(body)
    assert asked.model == name
    assert asked.stream is (members.get("stream") is True)
    spliced = b"".join(rewritten(body, asked, model="other", strip=()))
    assert json.loads(spliced) == {**whole, "model": "other"}
    old = json.dumps(name, ensure_ascii=layout.get("ensure_ascii", True)).encode("utf-8", "surrogatepass")
    assert len(spliced) == len(bytes(body)) - len(old) + len(b'"other"')


@QUICK
@given(MEMBERS, LAYOUTS, st.booleans())
def test_a_missing_model_is_put_in(members: dict[str, Any], layout: dict[str, Any], view: bool) -> None:
    body = body_of(members, layout, view=view)
    asked = read_json(body)
    assert asked.model is None
    assert json.loads(b"".join(rewritten(body, asked, model="m", strip=()))) == {"model": "m", **members}


@QUICK
@given(
    MEMBERS,
    st.sets(st.sampled_from(["adapters", "draft_model", "x"])),
    st.integers(0, 9),
    LAYOUTS,
    st.booleans(),
)
def test_stripping_takes_out_exactly_the_named_members(
    members: dict[str, Any], present: set[str], seed: int, layout: dict[str, Any], view: bool
) -> None:
    items = [*members.items(), ("model", "m"), *((name, {"a": [1, "}"]}) for name in sorted(present))]
    items = items[seed % len(items) :] + items[: seed % len(items)]
    whole = dict(items)
    body = body_of(whole, layout, view=view)
    got = b"".join(rewritten(body, read_json(body), model=None, strip=("adapters", "draft_model")))
    assert json.loads(got) == {k: v for k, v in whole.items() if k not in ("adapters", "draft_model")}


KEYS = st.sampled_from(["temperature", "top_p", "seed", "é", 'a"b', "model", "x"])
VALUES = st.dictionaries(
    KEYS, st.none() | st.integers() | st.text(max_size=5) | st.just({"a": [1]}), max_size=3
)


@QUICK
@given(MEMBERS, VALUES, VALUES, st.sets(KEYS, max_size=2), LAYOUTS, st.booleans())
def test_edits_strip_then_fill_in_then_set(
    members: dict[str, Any],
    put: dict[str, Any],
    default: dict[str, Any],
    strip: set[str],
    layout: dict[str, Any],
    view: bool,
) -> None:
    put, default = ({k: v for k, v in made.items() if k != "model"} for made in (put, default))
    strip = strip - {"model"}
    whole = {"model": "m", "temperature": 0.7, **members}
    body = body_of(whole, layout, view=view)
    edits = make_edits(strip, put, default)
    got = b"".join(rewritten(body, read_json(body), model="other", edits=edits))
    kept = {key: value for key, value in whole.items() if key not in strip}
    expected = {**default, **kept, **put, "model": "other"}
    assert json.loads(got) == expected
    assert [key for key, _ in json.loads(got, object_pairs_hook=list)].count("temperature") <= 1


def test_what_passes_an_edit_is_not_serialised_again() -> None:
    body = b'{ "model" : "m",\n  "messages": [ {"content":"a\\u00e9"} ], "temperature": 1.00 }'
    edits = make_edits(("top_k",), {"temperature": 0}, {"seed": 7, "top_p": 0.9})
    got = b"".join(rewritten(body, read_json(body), model=None, edits=edits))
    assert got == (
        b'{"temperature":0,"seed":7,"top_p":0.9, "model" : "m",\n  "messages": [ {"content":"a\\u00e9"} ] }'
    )
    assert b"".join(rewritten(b"{}", read_json(b"{}"), model=None, edits=edits)) == (
        b'{"temperature":0,"seed":7,"top_p":0.9}'
    )


@QUICK
@given(MEMBERS, LAYOUTS)
def test_entries_lie_where_they_say(members: dict[str, Any], layout: dict[str, Any]) -> None:
    body = bytes(body_of(members, layout, view=False))
    entries = find_entries(body)
    assert [entry.key for entry in entries] == list(members)
    for entry in entries:
        assert json.loads(body[entry.value_start : entry.value_end]) == members[entry.key]


DUPLICATES = {
    "plain": b'{"model":"a","model":"b"}',
    "the same twice": b'{"model":"a","model":"a"}',
    "escaped": b'{"model":"a","mod\\u0065l":"b"}',
    "escaped first": b'{"\\u006dodel":"a","x":1,"model":"b"}',
    "both escaped": b'{"\\u006dodel":"a","mode\\u006c":"b"}',
    "upper-case hex": b'{"\\u006Dodel":"a","model":"b"}',
    "far apart": b'{"model":"a","x":[{"model":1},"}",{"y":"\\""}] , "model" : "b"}',
}


@pytest.mark.parametrize("what", DUPLICATES)
def test_two_models_are_refused_however_they_are_spelled(what: str) -> None:
    assert code_of(DUPLICATES[what]) == "duplicate_model"


def test_an_escaped_key_alone_is_the_model() -> None:
    body = b'{"mod\\u0065l":"a","n":1}'
    asked = read_json(body)
    assert asked.model == "a"
    assert b"".join(rewritten(body, asked, model="b", strip=())) == b'{"mod\\u0065l":"b","n":1}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"content":"\\"model\\":\\"x\\""}],"model":"a"}',
        b'{"tools":[{"function":{"properties":{"model":{"type":"string"}}}}],"model":"a"}',
        b'{"model":"a","metadata":{"model":"b","model":"c"}}',
        b'{"x":"\\u00e9 \\"model\\"","model":"a"}',
    ],
)
def test_a_nested_model_is_not_the_model(body: bytes) -> None:
    assert read_json(body).model == "a"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b'"x"', "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"model":"a"} x', "invalid_json"),
        (b'{"model":"a",}', "invalid_json"),
        (b'{"a":NaN}', "invalid_json"),
        (b'{"model":1}', "invalid_model"),
        (b'{"model":null}', "invalid_model"),
        (b'{"model":["a"]}', "invalid_model"),
        (b'{"mod\\u0065l":1}', "invalid_model"),
        (b'{"model":"a","x":{"model":1},"stream":tru}', "invalid_json"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_code(body: bytes, code: str) -> None:
    assert code_of(body) == code


def test_stream_may_be_anything_and_only_true_streams() -> None:
    for value, expected in (
        ("true", True),
        ("false", False),
        ("null", False),
        ('"true"', False),
        ("[1]", False),
    ):
        assert read_json(b'{"stream": %b}' % value.encode()).stream is expected


def test_repeated_other_keys_pass_untouched() -> None:
    body = b'{"a":1,"model":"m","a":2}'
    asked = read_json(body)
    assert asked.model == "m"
    assert b"".join(rewritten(body, asked, model=None, strip=())) == body
    assert b"".join(rewritten(body, asked, model="x", strip=())) == b'{"a":1,"model":"x","a":2}'
    assert b"".join(rewritten(body, asked, model=None, strip=("a",))) == b'{"model":"m"}'
    body = b'{"a":"x","a":"y","model":"m","metadata":{"model":1}}'
    asked = read_json(body)
    assert asked.model == "m"
    assert b"".join(rewritten(body, asked, model="x", strip=())) == body.replace(b'"m"', b'"x"')


WHITE = st.sampled_from(["", " ", "\n\t", "  "])


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from(["a", "model", "b"]), JSON), max_size=5),
    st.lists(WHITE, min_size=20, max_size=20),
    LAYOUTS,
    st.booleans(),
)
def test_entries_are_found_as_they_stand_even_when_keys_repeat(
    pairs: list[tuple[str, Any]], white: list[str], layout: dict[str, Any], view: bool
) -> None:
    space = iter(white)
    members = ",".join(
        f"{next(space)}{json.dumps(key)}{next(space)}:{next(space)}{json.dumps(value, **layout)}{next(space)}"
        for key, value in pairs
    )
    raw = f"{{{members}}}".encode("utf-8", "surrogatepass")
    body = memoryview(bytearray(raw) + b"garbage")[: len(raw)] if view else raw
    entries = find_entries(body)
    assert [(e.key, json.loads(raw[e.value_start : e.value_end])) for e in entries] == pairs
    assert all(raw[e.start : e.start + 1] == b'"' for e in entries)


def test_a_value_made_to_look_like_members_leads_nobody_astray() -> None:
    """Without comparing values, the length of the last `a` leads from the first one into the last one."""
    good = b'{"a":1,"model":"good","z":0,"a":'
    # From the first value of `a`, as many bytes as the last one has end inside the last one, at the comma.
    tail = b',"model":"evil","z":'
    tail += b" " * (len(good) - 5 - len(tail) - 2) + b"0}"
    body = good + b'{"p":[' + b"1," * 30 + b"1]" + tail + b"}"
    model = [e for e in find_entries(body) if e.key == "model"]
    assert [body[e.value_start : e.value_end] for e in model] == [b'"good"']
    assert read_json(body).model == "good"


def test_a_huge_body_with_repeated_keys_is_refused_not_scanned() -> None:
    body = memoryview(bytearray(b'{"a":1,"a":2,"x":"' + b"y" * 2**20 + b'"}'))
    with pytest.raises(RefusedError) as caught:
        read_json(body)
    assert caught.value.refusal.code == "duplicate_key"


def test_too_many_members_are_refused() -> None:
    body = json.dumps({str(i): i for i in range(5000)} | {"a": {"model": 1}, "model": "m"}).encode()
    assert code_of(body) == "invalid_json"


def multipart(*parts: tuple[str, bytes]) -> bytes:
    made = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)
        for name, value in parts
    )
    return made + b"--B--\r\n"


TYPE = b"multipart/form-data; boundary=B"


def form_of(head: bytes) -> bytes:
    """One part with *head*."""
    return b"--B\r\n" + head + b"\r\n\r\nm\r\n--B--\r\n"


@pytest.mark.parametrize(
    "disposition",
    [
        b"form-data; name=model", b'FORM-DATA; Name="model"',
        b'form-data;name="model" ; filename="a\\"b.wav"',
        b"form-data; filename=\"\xc3\xa9.wav\"; filename*=UTF-8''%C3%A9.wav; name=\"model\"",
    ],
)  # fmt: skip
def test_a_field_may_be_named_in_any_proper_way(disposition: bytes) -> None:
    body = form_of(b"Content-Type: text/plain\r\ncontent-disposition:" + disposition)
    assert read_multipart(body, TYPE).model == "m"


def test_what_lies_behind_a_form_in_its_buffer_is_no_part_of_it() -> None:
    body = multipart(("model", b"a"))
    cut = memoryview(bytearray(body))[:-4]  # the two dashes that end it are another request's
    with pytest.raises(RefusedError):
        read_multipart(cut, TYPE)


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from(["a", "file"]), st.binary(max_size=30)), max_size=4), st.integers(0, 4)
)
def test_a_multipart_model_is_found_and_spliced_anywhere(
    parts: list[tuple[str, bytes]], position: int
) -> None:
    parts = [(name, value) for name, value in parts if b"\r\n--B" not in b"\r\n" + value]
    with_model = list(parts)
    with_model.insert(min(position, len(parts)), ("model", b"whisper"))
    body = multipart(*with_model)
    asked = read_multipart(body, TYPE)
    assert asked.model == "whisper"
    expected = multipart(*((n, b"other" if n == "model" else v) for n, v in with_model))
    assert b"".join(rewritten(body, asked, model="other", strip=())) == expected


def test_a_multipart_body_without_a_model_gets_one() -> None:
    body = multipart(("file", b"x"), ("stream", b"true"))
    asked = read_multipart(body, b'multipart/form-data; charset=utf-8; boundary="B"')
    assert (asked.model, asked.stream) == (None, True)
    told = b"".join(rewritten(body, asked, model="m", strip=()))
    assert read_multipart(told, TYPE).model == "m"


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (multipart(("model", b"a"), ("model", b"b")), TYPE, "duplicate_model"),
        (multipart(("model", b"a"))[:-8], TYPE, "invalid_multipart"),
        (b"junk", TYPE, "invalid_multipart"),
        (multipart(("model", b"a")), b"multipart/form-data", "bad_request"),
        (b'--B\r\nContent-Disposition: form-data; name="model"' + b"x" * 9000, TYPE, "invalid_multipart"),
        # Two readings: what an engine takes for the model's field, a simpler reader passes over.
        (form_of(b"Content-Disposition: form-data; name=model; name=file"), TYPE, "invalid_multipart"),
        (form_of(b"Content-Disposition: form-data; name*=utf-8''model"), TYPE, "invalid_multipart"),
        (form_of(b'Content-Disposition: form-data; name="mod\\el"'), TYPE, "invalid_multipart"),
        (form_of(b'Content-Disposition: x: form-data; name="model"'), TYPE, "invalid_multipart"),
        (form_of(b'X: y\r\n Content-Disposition: form-data; name="model"'), TYPE, "invalid_multipart"),
        (form_of(b'Content-Disposition: attachment; name="model"'), TYPE, "invalid_multipart"),
        (form_of(b"Content-Type: text/plain"), TYPE, "invalid_multipart"),
        (form_of(b"Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=model"),
         TYPE, "invalid_multipart"),
        (multipart(("model", b"a")), b'multipart/form-data; boundary=B; boundary="C"', "bad_request"),
        (multipart(("model", b"a")), b'multipart/form-data; x="; boundary=B"', "bad_request"),
        (multipart(("model", b"a")), b"multipart/form-data; boundary=B; charset=utf-16", "bad_request"),
        (multipart(("model", b"\xff")), TYPE, "invalid_model"),
        (multipart(("model", b"a" * 5000)), TYPE, "invalid_model"),
    ],
)  # fmt: skip
def test_a_bad_multipart_body_is_refused(body: bytes, content_type: bytes, code: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read_multipart(body, content_type)
    assert caught.value.refusal.code == code
