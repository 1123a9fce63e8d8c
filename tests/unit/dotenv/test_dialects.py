# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The three dialects against the programs themselves: python-dotenv and Docker Compose here, systemd as it was tried on a host."""

from __future__ import annotations

import io
import json
import logging
import os
import pathlib
import random
import subprocess
import sys
import time

import dotenv
import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import dialects
from hypothesis import given, settings
from hypothesis import strategies as st
from integration.environment.cases import CASES

COMPOSE = pathlib.Path(sys.executable).with_name("docker-compose")
# What Compose and python-dotenv make something of, and systemd does not.
REFERENCES = [
    'A=1\nB="$A ${A} ${A:-x} ${C:-y} ${C-z} ${A:+w} ${C:+v}"\nC="\\$A $$A"\n',
    "A=1\nB='$A ${A} ${C:-y}'\nC=$A${A}\n",
    'A="\\a\\b\\c\\f\\n\\r\\t\\v\\\\ \\0123 \\012 \\0377 \\0777 \\x41"\n',
    'A="x" # comment\nB=x # comment\nC="x"y\nD=1\n',
    "A=\"x\\\\\"\nB=\"y\"\nC='z\\\\'\nD='w'\n",
    'A=${B:-${C:-x}y}z\nB="${A:-}}"\n',
    "A=${A}\n${B}=1\nC=$\nD=${\n",
    "A: x\nB.C-D=2\n[E]=3\nF G=4\n",
    "export\nA=1\nexport   B=2\nexport C\n",
    "A=\"it's \\$x\"\nB='${'\nC=\"\\'\"\n",
]
TEXTS = [text for text, _values in CASES] + REFERENCES
NASTY = [
    *"AB='\"\\$#;`{}:-. \t\n",
    "\r\n",
    " #",
    "${A}",
    "$A",
    "${A:-",
    "\\n",
    "\\'",
    '\\"',
    "\\$",
    "export ",
    "ä",
    "\xa0",
    "\ufeff",
    "A=1\n",
    "B='",
]


def read(reader, text):
    try:
        return reader(text)
    except dialects.Unreadable:
        return None


def random_texts(count):
    """The same ones each time: half of them anything, the others such that most readers accept them."""
    chance = random.Random(4)

    def line():
        quote = chance.choice(["", "'", '"', '"'])
        value = "".join(chance.choice(NASTY) for _number in range(chance.randint(0, 6)))
        value = value.replace(quote, "") if quote else value.replace("\n", "")
        return f"{chance.choice(['', 'export ', ' '])}{chance.choice('ABC')}{chance.choice('==:')}{quote}{value}{quote}{chance.choice([' # x', ''])}\n"

    anything = ["".join(chance.choice(NASTY) for _number in range(chance.randint(2, 14))) for _number in range(count // 2)]
    return anything + ["".join(line() for _number in range(chance.randint(1, 3))) for _number in range(count // 2)]


@pytest.fixture
def no_environment(monkeypatch):
    """What is set for the tests is no value for a reference."""
    for name in ("A", "B", "C", "D"):
        monkeypatch.delenv(name, raising=False)
    logging.getLogger("dotenv").setLevel(logging.CRITICAL)


@pytest.mark.parametrize("text,expected", CASES)
def test_systemd(text, expected):
    assert read(dialects.systemd, text) == expected


def test_python_dotenv(tmp_path, no_environment):
    path = tmp_path / "env"
    for text in TEXTS:
        path.write_bytes(text.encode(errors="surrogateescape"))
        try:
            real = dotenv.dotenv_values(path, encoding="utf-8")
        except UnicodeDecodeError:
            real = None
        assert read(dialects.python_dotenv, text) == (real and {name: value for name, value in real.items() if value is not None}), text
    for text in random_texts(3000):
        real = dotenv.dotenv_values(stream=io.StringIO(text, newline=None))
        assert dialects.python_dotenv(text) == {name: value for name, value in real.items() if value is not None}, text


def test_compose(tmp_path):
    """Those that it reads in one run; those that it refuses, one by one, and so a few of them."""
    mine = [(text, read(dialects.compose, text)) for text in TEXTS + random_texts(400) if "\udcff" not in text]
    readable = [(text, values) for text, values in mine if values is not None]
    assert len(readable) > 100
    services = {}
    for number, (text, _values) in enumerate(readable):
        (tmp_path / f"env{number}").write_bytes(text.encode())
        services[f"s{number}"] = {"image": "none", "env_file": [f"env{number}"]}

    def compose(services):
        (tmp_path / "compose.json").write_text(json.dumps({"name": "shop", "services": services}))
        argv = [str(COMPOSE), "-f", "compose.json", "config", "--format", "json"]
        return subprocess.run(argv, cwd=tmp_path, env={"PATH": os.defpath}, capture_output=True, text=True, timeout=60, check=False)

    done = compose(services)
    assert done.returncode == 0, done.stderr
    answered = json.loads(done.stdout)["services"]
    for number, (text, values) in enumerate(readable):
        real = answered[f"s{number}"].get("environment") or {}
        # What it prints is meant to be read by Compose again.
        assert {name: (value or "").replace("$$", "$") for name, value in real.items()} == values, text
    refused = [text for text, values in mine if values is None]
    for text in refused[:: len(refused) // 12]:
        (tmp_path / "env").write_bytes(text.encode())
        assert compose({"one": {"image": "none", "env_file": ["env"]}}).returncode != 0, text


def test_disagreements_name_the_variable_and_never_the_value():
    text = "A=1\nB=$canary\nexport C=canary\nD='x' # canary\n# canary\\\nE=canary\ncanaryPart=x\n"
    said = dialects.disagreements(text)
    assert said == [
        "B: systemd, python-dotenv and systemd before 254 read one value; Docker Compose reads another.",
        "D: systemd and systemd before 254 read one value; Docker Compose and python-dotenv read another.",
        "E: systemd, Docker Compose and python-dotenv read one value; systemd before 254 does not have it.",
        "C: systemd and systemd before 254 do not have it; Docker Compose and python-dotenv read one value.",
    ]
    assert dialects.disagreements(text, ["systemd"]) == ["E: systemd reads one value; systemd before 254 does not have it."]
    assert dialects.disagreements("A='open") == [
        "Docker Compose refuses the file: the quote in line 1 is never closed.",
        "A: systemd and systemd before 254 read one value; python-dotenv does not have it.",
    ]
    assert dialects.disagreements("A=1\nB='two words'\n# comment\nC=\"x\ny\"\n") == []
    assert dialects.disagreements("\ufeffA=1\n") == [
        "A: systemd, python-dotenv and systemd before 254 do not have it; Docker Compose reads one value.",
        "a name that is not shown: systemd, Docker Compose and systemd before 254 do not have it; python-dotenv reads one value.",
    ]
    assert "canary" not in " ".join(dialects.disagreements("-----BEGIN\ncanaryMIIE==\n" + text))


@pytest.mark.parametrize(
    "value,line,others",
    [
        ("", "A=\n", []),
        ("plain-1.2/x:y@z", "A=plain-1.2/x:y@z\n", []),
        ("two words # no comment", "A='two words # no comment'\n", []),
        ("pa$$word$HOME", "A='pa$$word$HOME'\n", []),
        ("it's", 'A="it\'s"\n', []),
        ("back\\slash", "A='back\\slash'\n", []),
        ("back\\\\slash", 'A="back\\\\\\\\slash"\n', []),
        ("one\ntwo\n", "A='one\ntwo\n'\n", []),
        ('it\'s "both"', 'A="it\'s \\"both\\""\n', []),
        # No form says these to all of them.
        ("${HOME}", "A='${HOME}'\n", ["python_dotenv"]),
        ("it's $HOME", 'A="it\'s $HOME"\n', ["compose"]),
        ("ends with \\", 'A="ends with \\\\"\n', ["python_dotenv"]),
        ("one\rtwo", "A='one\rtwo'\n", ["python_dotenv"]),
    ],
)
def test_what_is_written(value, line, others):
    assert dialects.written("A", value) == (line, others)


@pytest.mark.parametrize("value", ["a\0b", "\udcff"])
def test_what_cannot_be_written(value):
    with pytest.raises(ValueError):
        dialects.written("A", value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from(["A", "B", "C_1", "d"]), st.text(st.sampled_from("ab'\"\\#;= \t\n`{}()!ä🎉:-")) | st.text(max_size=20))
)
def test_what_is_written_is_read_the_same_by_all(values):
    """But for a reference, a carriage return and a backslash at the end, for which there is no common form."""
    values = {name: value.replace("\0", "").replace("$", "").replace("\r", "").rstrip("\\") for name, value in values.items()}
    lines = {name: dialects.written(name, value) for name, value in values.items()}
    text = "".join(line for line, _others in lines.values())
    assert not any(others for _line, others in lines.values()), lines
    assert all(reader(text) == values for reader in dialects.DIALECTS.values())
    assert dialects.disagreements(text) == []


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(["A", "B", "C_1"]), st.text(st.sampled_from("ab'\"\\#$ {}\r\n:-A"))))
def test_systemd_reads_what_is_written_and_the_others_are_known(values):
    lines = {name: dialects.written(name, value) for name, value in values.items()}
    assert dialects.systemd("".join(line for line, _others in lines.values())) == values
    for name, (line, others) in lines.items():
        wrong = [
            dialect for dialect, reader in dialects.DIALECTS.items() if read(reader, line + "Z='z'\n\"\n") != {name: values[name], "Z": "z"}
        ]
        assert set(others) >= set(wrong) - {"compose"}


def test_half_a_megabyte_takes_no_longer_than_a_moment():
    """Also of what makes a careless pattern try again at every character."""
    million = 500_000
    texts = ["".join(f"KEY_{number}='a value \\ {number}'\n" for number in range(million // 28))]
    texts += [
        start + piece * (million // len(piece))
        for start in ("A=", "A='", 'A="')
        for piece in ("\\", "'", '"\\', "${", "${:", "${A:-", " ", " x")
    ]
    began = time.monotonic()
    for text in texts:
        for reader in dialects.DIALECTS.values():
            read(reader, text)
    assert time.monotonic() - began < 20
