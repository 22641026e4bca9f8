"""F91: YAML from outside is data within limits: tags, bombs, depth and size are refused early, with the line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.authoring.document import from_yaml
from perdure.authoring.yamltext import ALIASES_MAX, BYTES_MAX, DEPTH_MAX, NODES_MAX, read_yaml
from perdure.errors import DefinitionError

HEAD = "graph: g\nnodes: []\nx: "


def laughs(levels: int = 9, each: int = 9) -> str:
    lines = ["a0: &a0 lol"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * each)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int = 12, each: int = 4) -> str:
    lines = ["m0: &m0 {k0: 1}"]
    lines += [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * each)}], k{i}: 1}}" for i in range(1, levels)]
    return "\n".join(lines)


def wide_merges() -> str:
    """Each merge copies a wide mapping: quadratic for a reader that does not count."""
    wide = ", ".join(f"k{i}: 1" for i in range(2_000))
    return f"m: &m {{{wide}}}\n" + "\n".join(f"n{i}: {{<<: *m, own{i}: 1}}" for i in range(49))


ATTACKS: dict[str, tuple[Callable[[], str], str]] = {
    "a tag that calls": (lambda: HEAD + "!!python/object/apply:os.system ['true']", "line 3: tags such as"),
    "a tag of a name": (lambda: HEAD + "!!python/name:os.system", "line 3: tags such as"),
    "a tag of a module": (lambda: HEAD + "!!python/module:os", "line 3: tags such as"),
    "a tag of a class": (lambda: HEAD + "!!python/object:perdure.testing.world.World {}", "line 3: tags such as"),
    "a tag of our own": (lambda: HEAD + "!task {a: 1}", "line 3: tags such as"),
    "a tag on a key": (lambda: "!!str graph: g", "line 1: tags such as"),
    "a tag by a handle": (
        lambda: "%TAG ! tag:yaml.org,2002:python/\n---\n" + HEAD + "!name:os.system ''",
        "tags such as",
    ),
    "binary": (lambda: HEAD + "!!binary aGVsbG8=", "line 3: tags such as"),
    "billion laughs": (laughs, "aliases"),
    "billion laughs, few aliases": (lambda: laughs(6, 9), "once aliases are expanded"),
    "a list of itself": (lambda: HEAD + "&a [*a]", "is not defined before it, or holds itself"),
    "a mapping of itself": (lambda: HEAD + "&a {b: *a}", "is not defined before it, or holds itself"),
    "an alias of nothing": (lambda: HEAD + "*nothing", "line 3: "),
    "a merge bomb": (merges, "aliases"),
    "wide merges": (wide_merges, "once aliases are expanded"),
    "a merge of a text": (lambda: "<<: text", "<< takes a mapping or a list of mappings"),
    "many aliases": (lambda: "a: &a 1\nb: [" + "*a, " * (ALIASES_MAX + 1) + "]", f"more than {ALIASES_MAX} aliases"),
    "deep lists": (lambda: HEAD + "[" * 500, f"line 3: nested more than {DEPTH_MAX} deep"),
    "deeper lists than the parser goes": (lambda: HEAD + "[" * 100_000, "line 3: "),
    "deep mappings": (lambda: HEAD + "{a: " * 100_000, f"line 3: nested more than {DEPTH_MAX} deep"),
    "deep blocks": (lambda: "".join(f"{' ' * i}a:\n" for i in range(900)), f"nested more than {DEPTH_MAX} deep"),
    "deep sequences": (lambda: "- " * 50_000 + "a", f"nested more than {DEPTH_MAX} deep"),
    "a scalar of 10 MB": (lambda: HEAD + "a" * 10_000_000, f"more than {BYTES_MAX:,}"),
    "a key of 10 MB": (lambda: "a" * 10_000_000 + ": 1", f"more than {BYTES_MAX:,}"),
    "many values": (lambda: "x: [" + "1," * (NODES_MAX + 1) + "]", f"more than {NODES_MAX:,} values"),
    "many keys": (lambda: "\n".join(f"k{i}: 1" for i in range(NODES_MAX)), f"more than {NODES_MAX:,} values"),
    "a huge number": (lambda: HEAD + "1" * 500_000, "is no number"),
    "a huge number in base 60": (lambda: HEAD + "1" + ":59" * 200_000, "is no number"),
    "a huge number in hexadecimal": (lambda: HEAD + "0x" + "f" * 500_000, "is no number"),
    "infinity": (lambda: HEAD + ".inf", "cannot be kept as JSON"),
    "no number": (lambda: HEAD + ".nan", "cannot be kept as JSON"),
    "a lone surrogate": (lambda: HEAD + '"\\ud800"', "doc"),
    "control characters": (lambda: HEAD + '"\x07"', "doc"),
    "a list as a key": (lambda: "? [a, b]\n: 1", "is no text"),
    "a number as a key": (lambda: "1: a", "is no text"),
    "many documents": (lambda: "--- a\n" * 10_000, "line 2: a second document begins"),
    "an anchor without end": (lambda: "a: &" + "x" * 900_000 + " 1", "doc"),
    "an indentation without end": (lambda: "a:\n" + " " * 900_000 + "b", "doc"),
    "quotes without end": (lambda: "a: '" + "''" * 400_000, "line 1"),
}


@pytest.fixture(scope="module")
def honest() -> float:
    """How long the largest document that is allowed takes here."""
    text = "graph: g\nnodes:\n" + "\n".join(
        f"- {{name: s{i}, task: t, args: {{a: {{step: s{i - 1}}}}}}}" if i else "- {name: s0, task: t}"
        for i in range(4_400)
    )
    assert len(text) < BYTES_MAX
    begun = perf_counter()
    from_yaml(text, "doc")
    return perf_counter() - begun


@pytest.mark.parametrize("what", ATTACKS)
def test_f91_it_is_refused_with_its_line_and_in_time(what: str, honest: float) -> None:
    """Goal: each attack ends in one clear error, no later than the largest honest document is read."""
    make, said = ATTACKS[what]
    text = make()
    took = []
    for _ in range(4):  # the best of four: another process may have had the core
        begun = perf_counter()
        with pytest.raises(DefinitionError) as caught:
            from_yaml(text, "doc")
        took.append(perf_counter() - begun)
    message = str(caught.value)
    assert said in message
    assert message.startswith("doc")
    assert len(message) < 400
    assert "\n" not in message
    assert min(took) <= 3 * honest


def test_f91_nothing_is_imported_or_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no attack reaches an import, a call or an evaluation: an audit hook sees none."""
    events: list[str] = []
    watching = [True]

    def hook(event: str, arguments: object) -> None:
        if watching[0] and event in {"exec", "compile", "os.system", "subprocess.Popen", "pickle.find_class", "open"}:
            events.append(event)

    with pytest.raises(DefinitionError):
        from_yaml("a: !!x b", "doc")  # what is loaded once is loaded
    sys.addaudithook(hook)
    try:
        for make, _ in ATTACKS.values():
            text = make()
            if "python" in text:
                with pytest.raises(DefinitionError):
                    from_yaml(text, "doc")
    finally:
        watching[0] = False
    assert events == []


def test_what_is_just_allowed_is_read() -> None:
    """Goal: the limits are those that are said, to the value."""
    data, _ = read_yaml("a: &a 1\nb: [" + ", ".join(["*a"] * ALIASES_MAX) + "]", "doc")
    assert data["b"] == [1] * ALIASES_MAX
    data, _ = read_yaml("[" * DEPTH_MAX + "]" * DEPTH_MAX, "doc")
    assert data != []
    data, _ = read_yaml("[" + ",".join(["1"] * (NODES_MAX - 2)) + "]", "doc")
    assert len(data) == NODES_MAX - 2
    data, _ = read_yaml("'" + "a" * (BYTES_MAX - 2) + "'", "doc")
    assert len(data) == BYTES_MAX - 2
    data, _ = read_yaml("a: &m {x: 1, y: 2}\nb: {<<: *m, y: 3}", "doc")
    assert data["b"] == {"x": 1, "y": 3}


@settings(max_examples=400)
@given(st.text(st.sampled_from("ab01 \n\t:-[]{}&*!|>'\"%#?,<.~"), max_size=60) | st.text(max_size=40))
def test_any_text_is_data_or_a_clear_error(text: str) -> None:
    """Goal: no text whatever brings out another exception than ours."""
    for read in (read_yaml, from_yaml):
        said = "doc"
        try:
            read(text, "doc")
        except DefinitionError as error:
            said = str(error)
        assert said.startswith("doc")
