"""Secrets are masked wherever a text leaves."""

from __future__ import annotations

import pytest

from storage.redacting import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ada:hunter22@mlflow:5000/api", "http://***@mlflow:5000/api"),
        ("postgresql+psycopg2://ada:p%40ss@db/mlflow is down", "postgresql+psycopg2://***@db/mlflow is down"),
        ("https://hunter22@host", "https://***@host"),
        ("http://ada:hun@ter@host/x", "http://***@host/x"),
        ("two: http://a:b@c and ftp://d:e@f", "two: http://***@c and ftp://***@f"),
        ("https://host/x?token=hunter22&n=1", "https://host/x?token=***&n=1"),
        ("https://host/x?n=1&X-Amz-Signature=abc", "https://host/x?n=1&X-Amz-Signature=***"),
        ("http://127.0.0.1:4200/api answers 200", "http://127.0.0.1:4200/api answers 200"),
        ("write to ada@example.org", "write to ada@example.org"),
        ("http://host/users/@ada", "http://host/users/@ada"),
    ],
)
def test_credentials_in_an_address_are_masked_and_the_rest_stays(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY", "AWS_SECRET_ACCESS_KEY", "PREFECT_API_AUTH_STRING"],
)
def test_the_value_of_a_secret_variable_is_masked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hf_0123456789")
    assert redacted("401 for hf_0123456789 at hub") == "401 for *** at hub"


def test_other_variables_and_short_values_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "a quiet word")
    monkeypatch.setenv("SOME_TOKEN", "the")
    assert redacted("the tokenizer is a quiet word") == "the tokenizer is a quiet word"
