"""What `guard check` shows: a table that fits, figures that add up, nothing in silence."""

from __future__ import annotations

from checks.model import CheckReport, CheckSkip, Finding, Severity
from safeguards.output import Style
from safeguards.render.check import Checked, as_data, as_text
from safeguards.render.findings import finding_line


def found(subject: str, column: str | None, message: str, check: str = "data.missing") -> Finding:
    """Return an error with a hint."""
    return Finding(
        check, Severity.ERROR, subject, message, column=column, hint="mend " + "it " * 40
    )


def test_every_line_fits_the_terminal() -> None:
    """Long messages, hints, subjects and samples are broken or cut, words stay whole."""
    long = "data/" + "very-long-folder/" * 9 + "train.csv"
    report = CheckReport(
        (("data.missing", long),),
        (found(long, "age", "12 % of 'age' is missing, " + "and so on " * 20),),
        (CheckSkip("gpu", "there is no driver", "install it"),),
    )
    for width in (60, 80, 132):
        lines = as_text(Checked(report, declared=True), Style(width=width, wraps=True))
        words = [word for line in lines for word in line.split()]
        assert all(len(line) <= width or len(line.split()) == 1 for line in lines), lines
        assert words.count("so") == 20
        assert lines[0].startswith("failed")
        assert any(long in line for line in lines), "a path stays whole, to be copied"
    piped = as_text(Checked(report, declared=True), Style(width=80))
    assert sum("so on" in line for line in piped) == 1, "one finding is one line for grep"


def test_nothing_is_named_twice_in_a_finding() -> None:
    """Subject and column stand before the message only where it does not name them."""
    assert finding_line(found("a.csv", "age", "10 % of 'age' is missing")) == (
        "failed   a.csv: 10 % of 'age' is missing"
    )
    assert finding_line(found("a.csv", None, "a.csv is empty")) == "failed   a.csv is empty"
    assert finding_line(found("a.csv", "age", "is bad")) == "failed   a.csv: age: is bad"


def test_figures_add_up() -> None:
    """One rule that fails for a thousand columns is one rule that has not passed."""
    many = tuple(found("a.csv", f"c{n}", f"c{n} is bad") for n in range(1000))
    checked = tuple((f"data.{name}", "a.csv") for name in ("missing", "types", "constant"))
    report = CheckReport(checked, many)
    assert (report.passed, report.failed) == (2, 1000)
    data = as_data(Checked(report, declared=True))
    assert (data["passed"], data["failed"]) == (2, 1000)
    params = CheckReport(
        (
            ("params.source", "p.yaml"),
            ("params.value", "p.yaml: lr"),
            ("params.value", "p.yaml: n"),
        ),
        (found("p.yaml", "lr", "lr is bad", "params.range"),),
    )
    assert (params.passed, params.failed) == (2, 1)
    assert any(line.split() == ["p.yaml", "3", "rules", "1", "failed"] for line in text_of(params))


def text_of(report: CheckReport, *, verbose: bool = False) -> list[str]:
    """Return the lines of a report."""
    return as_text(Checked(report, declared=True), Style(verbose=verbose))


def test_many_subjects_are_summed_up() -> None:
    """A folder of a thousand models shows the failed ones, and how many others there are."""
    checked = tuple(("artifacts.whole", f"m{n}.pkl") for n in range(1000))
    report = CheckReport(checked, (found("m777.pkl", None, "is bad", "artifacts.damaged"),))
    lines = text_of(report)
    assert len(lines) < 30
    assert any(line.split()[:1] == ["m777.pkl"] for line in lines)
    assert "  and 980 more without a failure (-v shows all)" in lines
    assert len(text_of(report, verbose=True)) > 1000


def test_nothing_checked_is_not_passed() -> None:
    """A skip alone does not read like a success."""
    lines = text_of(CheckReport(skipped=(CheckSkip("a.csv", "it was left out", "declare it"),)))
    assert lines[-1] == "nothing was checked"
    assert any("a.csv" in line for line in lines)
