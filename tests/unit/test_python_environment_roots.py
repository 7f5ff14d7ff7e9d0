"""What of an environment is linked or copied, what is installed in it, what outlives a source."""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from rollback.atomic import LiveWriter
from rollback.model import Category, Policy
from rollback.resources.python import (
    Environment,
    changed_distributions,
    environment_root_from,
    environment_roots,
    find_environments,
    installed,
)
from rollback.resources.python.records import RecordIndex, parse_record


def distribution(site: Path, name: str, record: str, **files: str) -> Path:
    """Lay out an installed distribution with a RECORD."""
    folder = site / f"{name}.dist-info"
    folder.mkdir(parents=True)
    (folder / "RECORD").write_text(record)
    for file, content in files.items():
        (folder / file.replace("__", ".")).write_text(content)
    return folder


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A virtual environment with one distribution of each odd kind."""
    prefix = tmp_path / "env"
    site = prefix / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    distribution(
        site,
        "foo_bar-1.0",
        "foo/__init__.py,sha256=AAAA,10\n"
        '"foo/with,comma.py",sha256=BBBB,1\n'
        '"foo/with ""quotes"".py",sha256=CCCC,1\n'
        "foo/ü ñ.py,,\n"
        "foo/./dotted.py,,\n"
        "../../../bin/foo,sha256=DDDD,5\n"
        "../../../share/foo/data.bin,sha256=EEEE,5\n"
        "../../../../outside/secret,sha256=FFFF,5\n"
        "/etc/passwd,,\n"
        f"{prefix}/share/absolute,,\n"
        "../../../pyvenv.cfg,,\n"
        "foo.pth,,\n"
        "__editable__.foo-1.0.pth,,\n"
        "__editable___foo_1_0_finder.py,,\n"
        "foo_bar-1.0.dist-info/METADATA,sha256=GGGG,5\n"
        "foo_bar-1.0.dist-info/RECORD,,\n"
        "broken line\n",
    )
    distribution(site, "win-2.0", "win/a.py,sha256=AA,1\r\nwin/b.py,,\r\n")
    distribution(site, "empty-0.1", "")
    distribution(site, "bad-0.1", '"unterminated,\n')
    (site / "norecord-1.0.dist-info").mkdir()
    return prefix


def _environment(prefix: Path) -> Environment:
    (found,) = find_environments(
        [], {"VIRTUAL_ENV": str(prefix)}, prefix.parent / "none", cwd=prefix.parent
    )
    return found


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("{site}/foo/__init__.py", Policy.LINK),
        ("{site}/foo/with,comma.py", Policy.LINK),
        ('{site}/foo/with "quotes".py', Policy.LINK),
        ("{site}/foo/ü ñ.py", Policy.LINK),
        ("{site}/foo/dotted.py", Policy.LINK),
        ("{site}/win/a.py", Policy.LINK),
        ("{site}/win/b.py", Policy.LINK),
        ("share/foo/data.bin", Policy.LINK),
        ("share/absolute", Policy.LINK),
        ("bin/foo", Policy.COPY),
        ("bin/activate", Policy.COPY),
        ("pyvenv.cfg", Policy.COPY),
        ("{site}/foo.pth", Policy.COPY),
        ("{site}/__editable__.foo-1.0.pth", Policy.COPY),
        ("{site}/__editable___foo_1_0_finder.py", Policy.COPY),
        ("{site}/foo_bar-1.0.dist-info/METADATA", Policy.COPY),
        ("{site}/foo_bar-1.0.dist-info/RECORD", Policy.COPY),
        ("{site}/sitecustomize.py", Policy.COPY),
        ("{site}/FOO/__init__.py", Policy.COPY),
        ("outside/secret", Policy.COPY),
        ("etc/passwd", Policy.COPY),
        ("broken line", Policy.COPY),
    ],
)
def test_only_what_a_record_lists_is_linked(prefix: Path, path: str, policy: Policy) -> None:
    """Links are for what installers replace; copies for what tools and people edit."""
    (root,) = environment_roots(_environment(prefix))
    relative = path.format(site="lib/python3.11/site-packages").encode()
    assert root.policy(relative) is policy
    assert environment_root_from(root.parameters).policy(relative) is policy


def test_records_are_read_once_and_only_when_asked(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warm snapshot, in which nothing changed, opens no RECORD."""
    (root,) = environment_roots(_environment(prefix))
    opened: list[str] = []
    real = RecordIndex._paths

    def counted(index: RecordIndex) -> object:
        opened.append("")
        return real(index)

    monkeypatch.setattr(RecordIndex, "_paths", counted)
    root.policy(b"lib/python3.11/site-packages/x.pth")
    root.policy(b"bin/activate")
    assert opened == []
    for _ in range(3):
        root.policy(b"lib/python3.11/site-packages/foo/__init__.py")
    assert len(opened) == 1


def test_the_root_of_a_virtual_environment(prefix: Path) -> None:
    """One tree, in the category of dependencies; JSON that rebuilds it; node_modules stay in."""
    environment = _environment(prefix)
    (root,) = environment_roots(environment)
    assert root.path == os.fsencode(prefix)
    assert (root.resource, root.category) == ("python", Category.DEPENDENCIES)
    assert root.leave_out == {b"__pycache__"}
    assert root.excluded is None
    assert json.loads(json.dumps(root.parameters)) == root.parameters
    assert json.loads(json.dumps(root.facts))["distributions"]["foo-bar"] == {"version": "1.0"}
    again = environment_root_from(json.loads(json.dumps(root.parameters)))
    assert (again.name, again.path, again.leave_out) == (root.name, root.path, root.leave_out)


def test_a_symlinked_environment_is_captured_where_it_lies(prefix: Path, tmp_path: Path) -> None:
    """`.venv -> ~/envs/x`: the project has the link, this root has the content."""
    project = tmp_path / "project"
    project.mkdir()
    (project / ".venv").symlink_to(prefix)
    (found,) = find_environments(["make"], {"PATH": "/nowhere"}, project, cwd=project)
    assert (found.prefix, found.inside_project) == (str(prefix), False)


def test_of_a_system_only_what_pip_writes(tmp_path: Path) -> None:
    """site-packages, and in a shared bin the scripts of this interpreter alone."""
    prefix = tmp_path / "system"
    site = prefix / "lib" / "python3.11" / "site-packages"
    distribution(site, "ruff-1.0", "../../../bin/ruff,,\nruff/__init__.py,,\n")
    (prefix / "lib" / "python3.11" / "os.py").touch()
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3.11").write_bytes(b"\x7fELF")
    (prefix / "bin" / "ruff").write_bytes(b"\x7fELF")
    (prefix / "bin" / "mlflow").write_text(f"#!{prefix}/bin/python3.11\n")
    (prefix / "bin" / "other").write_text("#!/usr/bin/python3\n")
    os.mkfifo(prefix / "bin" / "pipe")
    command = [f"{prefix}/bin/python3.11"]
    (found,) = find_environments(command, {"HOME": str(tmp_path)}, tmp_path / "p", cwd=tmp_path)
    packages, scripts = environment_roots(found)
    assert packages.path == os.fsencode(site)
    assert packages.policy(b"ruff/__init__.py") is Policy.LINK
    assert scripts.path == os.fsencode(prefix / "bin")
    assert scripts.excluded is not None
    kept = {name for name in os.listdir(scripts.path) if not scripts.excluded(name)}
    assert kept == {b"ruff", b"mlflow"}
    assert len({packages.name, scripts.name}) == 2


def test_conda(tmp_path: Path) -> None:
    """What conda lists is linked, its history and what pip did not list is copied."""
    prefix = tmp_path / "conda"
    site = prefix / "lib" / "python3.11" / "site-packages"
    distribution(site, "six-1.0", "six.py,,\n")
    (prefix / "lib" / "python3.11" / "os.py").touch()
    (prefix / "conda-meta").mkdir()
    listed = {"files": ["bin/python3.11", "lib/libz.so.1", "lib/python3.11/site-packages/x.pth"]}
    (prefix / "conda-meta" / "zlib-1.2-0.json").write_text(json.dumps(listed))
    for name in ("broken", "list", "null"):
        (prefix / "conda-meta" / f"{name}.json").write_text("[1]" if name == "list" else name)
    (found,) = find_environments([], {"CONDA_PREFIX": str(prefix)}, tmp_path / "p", cwd=tmp_path)
    (root,) = environment_roots(found)
    linked = [b"bin/python3.11", b"lib/libz.so.1", b"lib/python3.11/site-packages/six.py"]
    assert all(root.policy(path) is Policy.LINK for path in linked)
    copied = [b"lib/python3.11/site-packages/x.pth", b"conda-meta/history", b"bin/mine"]
    assert all(root.policy(path) is Policy.COPY for path in copied)
    assert root.excluded is not None
    assert root.excluded(b"pkgs/zlib-1.2-0/lib/libz.so.1")
    assert not root.excluded(b"lib/libz.so.1")


def test_installed_names_versions_and_origins(tmp_path: Path) -> None:
    """From folder names and direct_url.json; leftovers of a killed pip are not installed."""
    site = tmp_path / "site"
    direct = {
        "local-1.0": {"url": "file:///src/local", "dir_info": {"editable": True}},
        "wheel-1.0": {"url": "https://user:tok3n@host.invalid/w.whl?key=tok3n"},
        "vcs-1.0": {
            "url": "https://tok3n@host.invalid/r",
            "vcs_info": {"vcs": "git", "commit_id": "abc"},
        },
    }
    for name, content in direct.items():
        distribution(site, name, "", direct_url__json=json.dumps(content))
    for name in ("pip-23.2.1", "torch-2.1.0+cpu", "Zope.Interface-6.0", "~dna-3.7", "odd-1.0"):
        distribution(site, name, "")
    (site / "odd-1.0.dist-info" / "direct_url.json").write_text("[")
    (site / "old-1.2-py3.11.egg-info").mkdir()
    (site / "linked.egg-link").write_text("/src/linked\n.\n")
    found = installed([str(site), str(tmp_path / "absent")])
    assert found == {
        "linked": {"version": "", "origin": "editable file:///src/linked"},
        "local": {"version": "1.0", "origin": "editable file:///src/local"},
        "odd": {"version": "1.0"},
        "old": {"version": "1.2"},
        "pip": {"version": "23.2.1"},
        "torch": {"version": "2.1.0+cpu"},
        "vcs": {"version": "1.0", "origin": "git+https://host.invalid/r@abc"},
        "wheel": {"version": "1.0", "origin": "https://host.invalid/w.whl"},
        "zope-interface": {"version": "6.0"},
    }
    assert "tok3n" not in json.dumps(found)


def test_an_upgrade_that_was_killed_shows_both_versions(tmp_path: Path) -> None:
    """Two folders of one distribution are not taken for either."""
    site = tmp_path / "site"
    distribution(site, "idna-3.7", "")
    before = installed([str(site)])
    distribution(site, "idna-3.10", "")
    assert installed([str(site)])["idna"]["version"] == "3.10 and 3.7"
    assert changed_distributions(before, installed([str(site)])) == [
        ("idna", "3.7", "3.10 and 3.7")
    ]


def test_changed_distributions_read_well() -> None:
    """Versions, additions, removals, and the origin where only that changed."""
    old = installed([])
    assert changed_distributions(old, old) == []
    lines = changed_distributions(
        {
            "idna": {"version": "3.7"},
            "six": {"version": "1.16"},
            "mine": {"version": "1.0"},
            "same": {"version": "1", "origin": "editable file:///a"},
        },
        {
            "idna": {"version": "3.10"},
            "rich": {"version": "13.9"},
            "mine": {"version": "1.0", "origin": "editable file:///src"},
            "same": {"version": "1", "origin": "editable file:///a"},
        },
    )
    assert lines == [
        ("idna", "3.7", "3.10"),
        ("mine", "1.0", "1.0 (editable file:///src)"),
        ("rich", None, "13.9"),
        ("six", "1.16", None),
    ]


def test_editable_installs_outside_are_named(prefix: Path, tmp_path: Path) -> None:
    """By .pth and by direct_url.json; what lies in project or prefix is captured anyway."""
    site = prefix / "lib" / "python3.11" / "site-packages"
    project = tmp_path / "project"
    folders = [tmp_path / "lib a", tmp_path / "lib-b", project / "src"]
    for folder in folders:
        folder.mkdir(parents=True)
    lines = ["import os; os.system('x')", "# note", str(folders[1]), str(folders[2]), "/gone", ""]
    (site / "easy-install.pth").write_text("\n".join(lines))
    url = {"url": folders[0].as_uri(), "dir_info": {"editable": True}}
    distribution(site, "a-1.0", "", direct_url__json=json.dumps(url))
    environ = {"VIRTUAL_ENV": str(prefix)}
    (found,) = find_environments(["make"], environ, project, cwd=project)
    assert found.editable == (str(folders[0]), str(folders[1]))
    assert [skip.what for skip in found.skips] == [
        f"editable install from {folder}" for folder in folders[:2]
    ]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"x", b'"', b'"a"b,c\n', b"\xff,\xfe\n", b"\0,"])
def test_broken_records_are_survived(content: bytes) -> None:
    """A RECORD is a file like any other; nonsense in it is dropped."""
    assert all(len(row) > 1 for row in parse_record(content))


def test_bytecode_of_a_source(tmp_path: Path) -> None:
    """Every interpreter's and level's, pytest's too; not a neighbour's whose name begins alike."""
    source = tmp_path / "model.py"
    source.write_text("x = 1\n")
    py_compile.compile(str(source))
    cache = tmp_path / "__pycache__"
    mine = ["model.cpython-312.opt-1.pyc", "model.cpython-311-pytest-8.3.4.pyc"]
    others = ["model2.cpython-311.pyc", "models.cpython-311.pyc", "model.txt"]
    for name in mine + others:
        (cache / name).touch()
    cleaned(tmp_path, b"gone.py", b"model.txt")
    assert len(list(cache.iterdir())) == 6
    cleaned(tmp_path, b"model.py")
    assert {path.name for path in cache.iterdir()} == set(others)
    cleaned(tmp_path, b"model2.py")
    assert {path.name for path in cache.iterdir()} == set(others[1:])


def cleaned(folder: Path, *sources: bytes) -> None:
    """Remove the compiled forms of sources, as a rollback does."""
    stage = folder / "stage"
    stage.mkdir(exist_ok=True)
    place = os.fsencode(stage)
    writer = LiveWriter(os.path.realpath(os.fsencode(folder)), {b"": place}, place)
    try:
        writer.remove_bytecode(sources)
    finally:
        writer.close()


def test_bytecode_through_a_planted_link(tmp_path: Path) -> None:
    """A `__pycache__` that leads elsewhere is not cleaned."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "model.cpython-311.pyc").touch()
    (tmp_path / "__pycache__").symlink_to(victim)
    cleaned(tmp_path, b"model.py")
    assert (victim / "model.cpython-311.pyc").exists()


def test_a_stale_file_really_is_what_python_would_run(tmp_path: Path) -> None:
    """Same size, same time, other content: Python runs the old code until the file goes."""
    source = tmp_path / "m.py"
    for text in ("x = 1\n", "x = 2\n"):
        source.write_text(text)
        os.utime(source, (1_000_000_000, 1_000_000_000))
        command = [sys.executable, "-c", "import m; print(m.x)"]
        environ = {key: value for key, value in os.environ.items() if "BYTECODE" not in key}
        seen = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
        ).stdout
    assert seen == "1\n"
    cleaned(tmp_path, b"m.py")
    seen = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    ).stdout
    assert seen == "2\n"
