"""Declarations are read strictly: what is not understood is named, never passed over."""

from __future__ import annotations

import tomllib

import pytest

from checks.data import DataCheck
from checks.declare import parse
from checks.errors import DeclarationError
from checks.features import FeaturesCheck
from checks.model import Severity


def read(text: str) -> object:
    """Parse the check table of a guard.toml."""
    return parse(tomllib.loads(text).get("check", {}))


def test_contract_example_is_read() -> None:
    """The data table of the command-line contract gives what it says."""
    declared = parse(
        tomllib.loads(
            """
            [[check.data]]
            path = "data/train.parquet"
            schema = "schemas/train.yaml"
            target = "label"
            max_missing = 0.10
            sigma = 3
            max_outliers = 0.02
            min_class_share = 0.05
            reference = "data/reference.parquet"
            max_drift = 0.2
            severity = "warning"
            [check.data.ranges]
            age = { min = 0, max = 120 }
            [check.data.categories]
            color = ["red", "green"]
            [[check.features]]
            path = "features.parquet"
            types = { age = "int" }
            """
        )["check"]
    )
    (data,) = declared.by_family["data"]
    assert data == DataCheck(
        "data/train.parquet",
        schema="schemas/train.yaml",
        target="label",
        max_missing=0.10,
        max_outliers=0.02,
        min_class_share=0.05,
        reference="data/reference.parquet",
        severity=Severity.WARNING,
        ranges={"age": (0.0, 120.0)},
        categories={"color": ("red", "green")},
    )
    assert declared.by_family["features"] == (
        FeaturesCheck("features.parquet", types={"age": "int"}),
    )
    assert declared
    assert not parse({})


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("[[check.data]]\n", "lacks `path`", "path"),
        ('[[check.data]]\npath="a"\nmax_mising=0.1\n', "no key `max_mising`", "max_missing"),
        ('[[check.dta]]\npath="a"\n', "no key `dta`", "data"),
        ('[[check.data]]\npath="a"\nmax_missing=10\n', "between 0 and 1", "max_missing"),
        ('[[check.data]]\npath="a"\nmax_missing="10%"\n', "has to be a number", "max_missing"),
        ('[[check.data]]\npath="a"\nsigma=0\n', "above 0", "sigma"),
        ('[[check.data]]\npath="a"\nsigma=nan\n', "above 0", "sigma"),
        ('[[check.data]]\npath="a"\nmethod="zscore"\n', "sigma, iqr, mad", "method"),
        ('[[check.data]]\npath="a"\nseverity="eror"\n', "'error'", "severity"),
        ('[[check.data]]\npath="a"\nseparator=";;"\n', "one ASCII character", "separator"),
        ('[[check.data]]\npath="a"\nengine="dask"\n', "spark://", "engine"),
        ('[[check.data]]\npath="a"\nranges={x={min=2,max=1}}\n', "above its `max`", "x"),
        ('[[check.data]]\npath="a"\nranges={x={}}\n', "needs `min`", "x"),
        ('[[check.data]]\npath="a"\ncategories={x=[]}\n', "list of texts", "x"),
        ('[[check.features]]\npath="a"\ntypes={x="integer"}\n', "int, float", "x"),
        ('[[check.features]]\npath="a"\nmax_drift=0\n', "above 0", "max_drift"),
        ("check = 3\n", "table", ""),
    ],
)
def test_wrong_declaration_names_key_and_mend(text: str, said: str, hint: str) -> None:
    """Each mistake says what is wrong, where, and what is meant."""
    with pytest.raises(DeclarationError) as caught:
        read(text)
    assert said in str(caught.value)
    assert hint in caught.value.hint
