"""Where configuration comes from, and how several sources become one."""

import pytest

from collector.config import InvalidConfig, load, read_source

MERGED = [
    ("a: 1", "b: 2", {"a": 1, "b": 2}),
    ("a: {x: 1, y: 2}", "a: {y: 3, z: 4}", {"a": {"x": 1, "y": 3, "z": 4}}),
    ("a: [1, 2]", "a: [3]", {"a": [3]}),
    ("a: {x: 1}", "a: 5", {"a": 5}),
    ("a: {x: {y: 1}, z: 2}", "a: {x: }", {"a": {"x": None, "z": 2}}),
    ("a: {x: 1}", "a: {}", {"a": {"x": 1}}),
    ("a: 1", "", {"a": 1}),
    ("a: {x: 1}", "a::x: 2", {"a": {"x": 2}}),
]


@pytest.mark.parametrize(("first", "second", "expected"), MERGED)
def test_merging(loader, first, second, expected):
    """Maps join; lists, scalars and nulls replace."""
    files = [loader.file(first, "1.yaml"), loader.file(second, "2.yaml")]
    assert read_source(files, environ={}) == expected


def test_schemes(loader):
    """A bare path, file:, env: and yaml: are read, left to right."""
    path = loader.file("a: {from: path}", "x.yaml")
    other = loader.file("b: {from: file}", "y.yaml")
    uris = [path, f"file:{other}", "env:MY_YAML", "yaml:d::from: yaml"]
    assert read_source(uris, environ={"MY_YAML": "c: {from: env}"}) == {
        "a": {"from": "path"},
        "b": {"from": "file"},
        "c": {"from": "env"},
        "d": {"from": "yaml"},
    }


def test_set_comes_last_and_in_order(loader):
    """--set wins over every file; dots are paths; the value is YAML."""
    sets = ["a.b=1", "a.c=[x, 2]", "a.b=3", "a.d = x=y ", "e=${V}"]
    uris = ["yaml:a: {b: 0}"]
    assert read_source(uris, sets, {"V": "v"}) == {
        "a": {"b": 3, "c": ["x", 2], "d": "x=y"},
        "e": "v",
    }


def test_relative_files_start_at_the_working_folder(loader, monkeypatch):
    """A relative path is relative to where the command runs."""
    loader.file("a: 1", "x.yaml")
    monkeypatch.chdir(loader.folder)
    assert read_source(["x.yaml"]) == {"a": 1}


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("http://h/x", 'unsupported scheme on URI "http://h/x"\n  configuration is not fetched'),
        ("s3:x", 'unsupported scheme on URI "s3:x"\n  schemes: env, file, yaml; for a file'),
        ("fil:x", 'unsupported scheme on URI "fil:x"\n  did you mean "file"?'),
        ("1:x", 'invalid uri: "1:x"\n'),
    ],
)
def test_uris_that_are_not_taken(uri, text):
    """Other schemes are refused with the Collector's text and the way out."""
    with pytest.raises(InvalidConfig) as caught:
        load([uri])
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"[1]", "retrieved value (type=[]interface {}) cannot be used as a Conf\n"),
        (b"just text", "retrieved value (type=string) cannot be used as a Conf\n"),
        (
            b"a: 1\na: 2",
            (
                "retrieved value (type=string) cannot be used as a Conf: assuming string type since "
                "contents are not valid YAML: yaml: unmarshal errors: line 2: mapping key "
                '"a" already defined at line 1\n'
            ),
        ),
        (b"\xff", "cannot retrieve the configuration: unable to read the file file:"),
        (b"a: " + b"x" * 2**20, "cannot retrieve the configuration: unable to read the file file:"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, content, text):
    """A file that is not a YAML mapping is refused with its reason."""
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidConfig) as caught:
        load([str(path)])
    prefix = "failed to get config: cannot resolve the configuration: "
    assert str(caught.value).startswith(prefix + text)


def test_every_source_that_fails_is_reported(tmp_path):
    """Two missing files and a bad --set are three messages."""
    with pytest.raises(InvalidConfig) as caught:
        load([f"{tmp_path}/1", f"{tmp_path}/2"], ["a.b"])
    assert [text.splitlines()[0] for text in caught.value.problems] == [
        'invalid argument "a.b" for "--set" flag: missing equal sign',
        *(
            f"cannot retrieve the configuration: unable to read the file file:{tmp_path}/{name}: "
            f"open {tmp_path}/{name}: no such file or directory"
            for name in "12"
        ),
    ]


def test_a_problem_in_set_names_the_option(loader):
    """What --set breaks is located at the option, without its value."""
    assert loader.errors(loader.good, sets=["exporters.debug.count=secret"]) == [
        (
            "'exporters' error reading configuration for \"debug\": 'count' expected type 'int', "
            "got unconvertible type 'string'\n"
            "  --set exporters.debug.count, exporters.debug.count"
        )
    ]
