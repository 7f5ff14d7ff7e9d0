"""`[[check.params]]`: every wrong parameter named with value, limit and origin."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.context import Context
from checks.errors import DeclarationError
from checks.model import CheckReport, Finding, Severity
from checks.params import ParamsCheck, check
from checks.params.values import scalar
from checks.tables import Table


def run(base: Path, declaration: str, *command: str, **environ: str) -> CheckReport:
    """Check parameters by a declaration in TOML."""
    table = Table(tomllib.loads(declaration), "[[check.params]] number 1")
    return check(ParamsCheck.from_table(table), Context(base, environ, tuple(command)))


def only(report: CheckReport) -> Finding:
    """Return the one finding of a report."""
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def one(tmp_path: Path, value: str, rule: str) -> CheckReport:
    """Check the parameter ``p``, written in YAML, by a rule written in TOML."""
    (tmp_path / "p.yaml").write_text(f"p: {value}\n")
    return run(tmp_path, f'file = "p.yaml"\n[ranges]\np = {rule}')


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("0.5", "{ min = 0, max = 1 }"),
        ("1", "{ min = 0, max = 1 }"),
        ("1.0e-3", "{ above = 0, below = 1 }"),
        ("16", "{ choices = [16, 32] }"),
        ("16.0", "{ choices = [16, 32] }"),
        ("adam", '{ choices = ["adam"] }'),
        ("true", '{ type = "bool" }'),
        ("[1, 2]", '{ type = "list" }'),
        ("3", '{ type = "int" }'),
        (".inf", "{ min = 0 }"),
        ("x", "{}"),
    ],
)
def test_good_values(tmp_path: Path, value: str, rule: str) -> None:
    """What a rule allows gives no finding, its limits included."""
    assert one(tmp_path, value, rule).findings == ()


@pytest.mark.parametrize(
    ("value", "rule", "name", "said"),
    [
        ("1.5", "{ min = 0, max = 1 }", "params.range", "greater than 1"),
        ("-1", "{ min = 0 }", "params.range", "smaller than 0"),
        ("0", "{ above = 0 }", "params.range", "not greater than 0"),
        ("1", "{ exclusive_max = 1 }", "params.range", "not smaller than 1"),
        ("-.inf", "{ min = 0 }", "params.range", "smaller than 0"),
        (".nan", "{ min = 0 }", "params.nan", "is not a number"),
        ('"0.5"', "{ min = 0 }", "params.type", "is a text that looks like a number"),
        ("fast", "{ min = 0 }", "params.type", "is not a number"),
        ("true", "{ min = 0 }", "params.type", "is true, not a number"),
        ("yes", '{ type = "int" }', "params.type", "is true, not a whole number"),
        ("1.5", '{ type = "int" }', "params.type", "is not a whole number"),
        ("", "{ min = 0 }", "params.type", "is empty (null), not a number"),
        ("[1]", "{ min = 0 }", "params.type", "is a list, not a number"),
        ("1", '{ type = "str" }', "params.type", "is a whole number, not a text"),
        ("64", "{ choices = [16, 32] }", "params.choices", "is none of 16, 32"),
        ("true", "{ choices = [1] }", "params.choices", "is none of 1"),
        ('"16"', "{ choices = [16] }", "params.choices", "is none of 16"),
    ],
)
def test_bad_values(tmp_path: Path, value: str, rule: str, name: str, said: str) -> None:
    """Each wrong value is one error that names parameter, value and line."""
    finding = only(one(tmp_path, value, rule))
    assert (finding.check, finding.column, finding.severity) == (name, "p", Severity.ERROR)
    assert said in finding.message
    assert "from p.yaml:1" in finding.message
    assert finding.hint


@pytest.mark.parametrize("text", ["1e-3", "1E5", "-2e10", "1.5e3", ".5e-3", "+1e+3"])
def test_numbers_that_yaml_readers_take_for_texts(tmp_path: Path, text: str) -> None:
    """They count as the numbers they look like; the trap itself is a warning."""
    inside = run_scientific(tmp_path, text, "-1e11", "1e6")
    outside = run_scientific(tmp_path, text, "1e7", "1e8")
    assert [f.check for f in outside.findings][-1] == "params.range"
    traps = [f for f in inside.findings if f.severity is Severity.WARNING]
    import yaml  # noqa: PLC0415

    misread = isinstance(yaml.safe_load(text), str)
    assert len(traps) == len(inside.findings) == (1 if misread else 0)


def run_scientific(tmp_path: Path, text: str, low: str, high: str) -> CheckReport:
    """Check a number in scientific notation against limits."""
    return one(tmp_path, text, f"{{ min = {low}, max = {high} }}")


def test_missing_and_optional(tmp_path: Path) -> None:
    """A parameter with a rule has to be there, unless it is optional."""
    (tmp_path / "p.yaml").write_text("a: 1\n")
    report = run(tmp_path, 'file = "p.yaml"\n[ranges]\nb.min = 0\nc = {min = 0, optional = true}')
    assert only(report).check == "params.missing"


def test_formats_and_nesting(tmp_path: Path) -> None:
    """YAML, TOML and JSON give the same dotted names; later files win."""
    document = {"train": {"lr": 0.1, "sizes": [8, 16]}}
    (tmp_path / "a.json").write_text(json.dumps(document))
    (tmp_path / "b.toml").write_text("[train]\nlr = 0.2\nsizes = [8, 16]\n")
    (tmp_path / "c.yml").write_text("train:\n  lr: 0.3\n  sizes: [8, 16]\n")
    rules = '\n[ranges]\n"train.lr" = {max = 0.01}\n[ranges.train.sizes.1]\nmax = 4'
    for name, lr in (("a.json", "0.1"), ("b.toml", "0.2"), ("c.yml", "0.3")):
        found = run(tmp_path, f'file = ["a.json", "{name}"]{rules}').findings
        assert f"train.lr = {lr}" in found[0].message
        assert found[1].column == "train.sizes.1"


@pytest.mark.parametrize(
    ("command", "value"),
    [
        (("train.py", "--lr", "5"), 5),
        (("train.py", "--lr=5"), 5),
        (("train.py", "-lr=5"), 5),
        (("train.py", "--train.lr", "5"), 5),
        (("train.py", "train.lr=5"), 5),
        (("train.py", "++train.lr=5e0"), 5.0),
        (("train.py", "--lr", "-5"), -5),
        (("train.py", "--lr", "3", "--lr=5"), 5),
    ],
)
def test_command_line_overrides(tmp_path: Path, command: tuple[str, ...], value: float) -> None:
    """The last setting on the command line wins, and is named as the origin."""
    (tmp_path / "p.yaml").write_text("train:\n  lr: 0.1\n")
    finding = only(
        run(tmp_path, 'file = "p.yaml"\n[ranges]\n"train.lr" = {min=0, max=1}', "python", *command)
    )
    assert finding.value == value
    assert "from command line: " in finding.message


def test_short_names_that_fit_two(tmp_path: Path) -> None:
    """An option that could mean two parameters sets none."""
    (tmp_path / "p.yaml").write_text("a: {lr: 0.1}\nb: {lr: 0.1}\n")
    rules = 'file = "p.yaml"\n[ranges]\n"a.lr" = {max=1}\n"b.lr" = {max=1}'
    assert run(tmp_path, rules, "python", "t.py", "--lr", "5").findings == ()


def test_sweeps_check_every_value(tmp_path: Path) -> None:
    """With --multirun each value of a sweep is held against the rule."""
    (tmp_path / "p.yaml").write_text("lr: 0.1\n")
    rules = 'file = "p.yaml"\n[ranges]\nlr = {max=1}'
    report = run(tmp_path, rules, "python", "t.py", "-m", "lr=0.1,5,7")
    assert [finding.value for finding in report.findings] == [5, 7]


def test_environment(tmp_path: Path) -> None:
    """Variables that the declaration names set parameters, under the command line."""
    (tmp_path / "p.yaml").write_text("lr: 0.1\n")
    rules = 'file = "p.yaml"\nenvironment = {lr = "LR"}\n[ranges]\nlr = {max=1}'
    assert "from environment: LR" in only(run(tmp_path, rules, LR="5")).message
    assert run(tmp_path, rules, "python", "t.py", "lr=0.5", LR="5").findings == ()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('less_than = ["low", "high"]', None),
        ('less_than = ["high", "low"]', "has to be smaller than low = 1"),
        ('at_most = ["high", 5]', "has to be at most 5"),
        ('equal = ["low", 2]', "has to be equal to 2"),
        ('multiple_of = ["high", "low"]', None),
        ('multiple_of = ["high", 4]', "a multiple of 4"),
        ('multiple_of = ["high", 0]', "a multiple of 0"),
        ('less_than = ["gone", 1]', "gone is not set"),
        ('less_than = ["name", 1]', "is no number"),
        ('requires = ["low"]', None),
        ('requires = ["gone"]', "gone is not set, but is needed"),
        ('when = {name = "sgd"}\nrequires = ["gone"]', "where name = 'sgd'"),
        ('when = {name = "adam"}\nrequires = ["gone"]', None),
        ('when = {name = "sgd"}\nforbids = ["low"]', "low is set (from p.yaml:1)"),
    ],
)
def test_relations(tmp_path: Path, rule: str, said: str | None) -> None:
    """Parameters are held against one another, without any code of the declaration."""
    (tmp_path / "p.yaml").write_text("low: 1\nhigh: 10\nname: sgd\n")
    report = run(tmp_path, f'file = "p.yaml"\n[[rules]]\n{rule}')
    if said is None:
        assert report.findings == ()
    else:
        assert said in only(report).message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"a: [1\n", "is no YAML"),
        (b"- 1\n- 2\n", "is no table"),
        (b"a: \xff\n", "is not UTF-8: byte 3 is 0xff"),
        (b"a: 1\nb: 2\na: 3\n", "sets 'a' twice, in lines 1 and 3"),
        (b"a: &x [*x]\n", "nested too deep"),
        (
            b"a: !!python/object/apply:os.getcwd []\nb: !!python/name:os.system x\n",
            "is no YAML",
        ),
        (b"a: 2020-99-99\n", "cannot be read"),
        (b"\x00\x01", "is no YAML"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, said: str) -> None:
    """A file that holds no parameters is an error; rules are not judged without it."""
    (tmp_path / "p.yaml").write_bytes(content)
    report = run(tmp_path, 'file = "p.yaml"\n[ranges]\nzzz = {min = 0}')
    finding = only(report)
    assert said in finding.message
    assert finding.subject == "p.yaml"


def test_many_aliases(tmp_path: Path) -> None:
    """Aliases of aliases are given up at a limit, in no time."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "p.yaml").write_text("\n".join(lines))
    report = run(tmp_path, 'file = "p.yaml"')
    assert "more than 100,000 entries" in only(report).message
    assert report.elapsed_s < 20


@pytest.mark.parametrize("name", ["p.json", "p.toml"])
def test_bad_json_and_toml(tmp_path: Path, name: str) -> None:
    """Broken files and repeated keys of the other formats are errors, too."""
    for content in ("{", "a = = 1", '{"a": 1, "a": 2}' if name == "p.json" else "a = 1\na = 2"):
        (tmp_path / name).write_text(content)
        assert not run(tmp_path, f'file = "{name}"').ok
    (tmp_path / name).write_text("[" * 100_000)
    assert not run(tmp_path, f'file = "{name}"').ok


def test_odd_files(tmp_path: Path) -> None:
    """A FIFO, a circle of links, a missing and a huge file are findings, and nothing hangs."""
    os.mkfifo(tmp_path / "pipe.yaml")
    os.symlink("round.yaml", tmp_path / "round.yaml")
    with open(tmp_path / "huge.yaml", "wb") as file:
        file.truncate(100 << 30)
    said = {"pipe": "FIFO", "round": "circle", "huge": "too large", "gone": "does not exist"}
    for name, part in said.items():
        assert part in only(run(tmp_path, f'file = "{name}.yaml"')).message


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """The value of a parameter that is named like a secret stays hidden."""
    (tmp_path / "p.yaml").write_text("api_token: hunter2-canary\nlong: " + "x" * 500)
    report = run(
        tmp_path, 'file = "p.yaml"\n[ranges]\napi_token = {choices=["a"]}\nlong = {type="int"}'
    )
    assert "hunter2-canary" not in repr(report)
    assert all(len(finding.message) < 200 for finding in report.findings)


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        ("fil = 1", "no key `fil`"),
        ('file = "p.yaml"\n[ranges]\na = 3', "has to be a table"),
        ('file = "p.yaml"\n[ranges]\na = {mim = 3}', "did you mean"),
        ('file = "p.yaml"\n[ranges]\na = {min = 3, max = 1}', "greater than max"),
        ('file = "p.yaml"\n[ranges]\na = {choices = []}', "is empty"),
        ('file = "p.yaml"\n[ranges]\na = {type = "number"}', "has to be one of"),
        ('file = "p.yaml"\n[[rules]]\nwhen = {a = 1}', "a rule needs one of"),
        ('file = "p.yaml"\n[[rules]]\nless_than = ["a"]', "two parameters or numbers"),
        ('file = "p.yaml"\n[batch]\nparameter = "b"', "`data` has to be given"),
    ],
)
def test_wrong_declarations(tmp_path: Path, declaration: str, said: str) -> None:
    """A declaration that cannot be meant is an error that names the key."""
    with pytest.raises(DeclarationError) as caught:
        run(tmp_path, declaration)
    assert said in f"{caught.value} {caught.value.hint}"


def test_batch_against_memory(tmp_path: Path) -> None:
    """A batch that cannot fit names the largest that would."""
    (tmp_path / "p.yaml").write_text("bs: 64\n")
    base = 'file = "p.yaml"\n[batch]\nparameter = "bs"\n'
    assert run(tmp_path, base + 'sample = "1KB"').findings == ()
    finding = only(run(tmp_path, base + 'sample = "100TB"'))
    assert finding.check == "params.batch_memory"
    assert finding.hint.endswith("at most 0")
    (tmp_path / "d.csv").write_text("a,b\n" + "1,2\n" * 100)
    assert run(tmp_path, base + 'data = "d.csv"').findings == ()
    many = run(tmp_path, base + 'data = "d.csv"', "t", "bs=1000000000000")
    assert only(many).value == 16 * 10**12  # two integers of 8 bytes a row
    assert run(tmp_path, base + 'data = "gone.csv"').skipped != ()
    assert (
        "not set to a number" in only(run(tmp_path, base + 'sample = "1KB"', "t", "bs=x")).message
    )


HYDRA = {
    "config.yaml": """\
defaults:
  - base
  - model: small
  - optional dataset: gone
  - optim@train.optim: adam
  - _self_
lr: 1e-3
model:
  dropout: 0.5
train:
  lr: ${lr}
seed: ${oc.env:SEED,7}
""",
    "base.yaml": "base_value: 1\ntrain:\n  epochs: 1\n",
    "model/small.yaml": "defaults:\n  - common\n  - _self_\nlayers: 2\ndropout: 0.1\n",
    "model/big.yaml": "layers: 100\ndropout: 0.3\n",
    "model/common.yaml": "common: 5\nlayers: 1\n",
    "optim/adam.yaml": "lr: 0.01\n",
    "optim/sgd.yaml": "lr: 0.1\n",
    "experiment/e.yaml": "# @package _global_\ndefaults:\n  - override /model: big\nlr: 5\n",
}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {"lr": 1e-3, "train.lr": 1e-3, "model.layers": 2, "model.dropout": 0.5}),
        ((), {"model.common": 5, "train.optim.lr": 0.01, "base_value": 1, "seed": "7"}),
        (("model=big",), {"model.layers": 100, "model.common": None, "model.dropout": 0.5}),
        (("lr=3", "model.layers=4"), {"train.lr": 3, "model.layers": 4}),
        (("+experiment=e",), {"lr": 5, "train.lr": 5, "model.layers": 100}),
        (("~model",), {"model.layers": None, "model.dropout": 0.5}),
        (("optim@train.optim=sgd",), {"train.optim.lr": 0.1}),
    ],
)
def test_hydra(tmp_path: Path, words: tuple[str, ...], expected: dict[str, object]) -> None:
    """A Hydra folder is composed as Hydra 1.3 composes it (these values are Hydra's own)."""
    from checks.params.checking import collect  # noqa: PLC0415

    for name, text in HYDRA.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / name).write_text(text)
    declaration = ParamsCheck(files=("conf",))
    found = collect(declaration, Context(tmp_path, {}, ("python", "t.py", *words)))
    values = {name: found[name].value if name in found else None for name in expected}
    assert values == expected


def test_a_hydra_folder_with_a_hole(tmp_path: Path) -> None:
    """A file that a defaults list names has to be there; a circle of them is given up."""
    (tmp_path / "conf").mkdir()
    assert only(run(tmp_path, 'file = "conf"')).check == "params.missing"
    (tmp_path / "conf" / "config.yaml").write_text("defaults:\n  - gone\n")
    assert "'gone'" in only(run(tmp_path, 'file = "conf"')).message
    (tmp_path / "conf" / "config.yaml").write_text("defaults:\n  - config\n")
    assert "without end" in only(run(tmp_path, 'file = "conf"')).message


def test_what_only_the_run_knows_is_skipped(tmp_path: Path) -> None:
    """An interpolation that needs the run is a skip, not a wrong text."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("lr: ${now:%Y}\n")
    report = run(tmp_path, 'file = "conf"\n[ranges]\nlr = {max = 1}')
    assert (report.findings, len(report.skipped)) == ((), 1)


@given(st.floats(allow_nan=False) | st.integers(-(10**30), 10**30) | st.booleans())
def test_scalars_of_the_command_line(value: float) -> None:
    """What Python or YAML writes for a number or truth value is read back as it."""
    read = scalar(str(value))
    assert (read, type(read)) == (value, type(value))


@given(st.text())
def test_any_text_is_a_scalar(text: str) -> None:
    """No text of a command line raises."""
    scalar(text)


CANARY = "hunter2plain"


def test_secrets_are_in_no_part_of_a_finding(tmp_path: Path) -> None:
    """By the name of the parameter, in addresses, by an issuer's mark, and on the command line."""
    token = "hf_" + "a1B2c3D4e5" * 4
    (tmp_path / "p.yaml").write_text(
        f"db_password: {CANARY}\nurl: postgres://user:{CANARY}@host/db\npin_secret: 4711\n"
        f"model: {token}\napi: {{key: x}}\nmax_tokens: 9999\n"
    )
    report = run(
        tmp_path,
        'file = "p.yaml"\n[ranges]\n'
        'db_password.type = "int"\nurl.choices = ["a"]\npin_secret.max = 1\n'
        'model.choices = ["b"]\n"api.key".type = "int"\nwandb_api_key.type = "int"\n'
        "max_tokens.max = 512\n"
        '[[rules]]\nless_than = ["pin_secret", "max_tokens"]\n'
        '[[rules]]\nless_than = ["max_tokens", "pin_secret"]\n',
        *("python", "train.py", f"--db_password={CANARY}", "--wandb-api-key", CANARY),
    )
    assert len(report.findings) >= 7
    for finding in report.findings:
        for secret in (CANARY, token, "4711"):
            assert secret not in repr(finding), finding.column
    (tokens,) = [f for f in report.findings if f.check == "params.range" and f.limit == 512]
    assert "max_tokens = 9999" in tokens.message, "a number of tokens is no secret"


def test_values_of_the_environment_in_hydra(tmp_path: Path) -> None:
    """`oc.env` gives a text, as OmegaConf does, and the finding says how to decode it."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(
        "a: ${oc.env:EPOCHS,10}\nb: ${oc.decode:${oc.env:EPOCHS,10}}\n"
    )
    declared = 'file = "conf"\n[ranges]\na.max = 5\nb.max = 5'
    findings = {f.column: f for f in run(tmp_path, declared, EPOCHS="7").findings}
    assert findings["a"].check == "params.type"
    assert "environment: EPOCHS" in findings["a"].message
    assert "oc.decode" in findings["a"].hint
    assert (findings["b"].check, findings["b"].value) == ("params.range", 7)


def test_a_folder_without_its_primary_configuration(tmp_path: Path) -> None:
    """It is told apart from a hole in a defaults list."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("lr: 1\n")
    command = ("python", "train.py", "--config-name=other")
    finding = only(run(tmp_path, 'file = "conf"', *command))
    assert "without other.yaml, its primary configuration" in finding.message
