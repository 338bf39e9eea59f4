"""docker-compose.yml without an engine: the schema, the references inside it, and where secrets may stand."""

import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)")
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|API_KEY")
CREDENTIALS = re.compile(r"://[^/@\s]*:(?P<password>[^/@\s]+)@")


@pytest.fixture
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


def check_schema(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def dependency_problems(compose: dict[str, Any]) -> list[str]:
    services, problems = compose["services"], []
    for name, service in services.items():
        for target, how in service.get("depends_on", {}).items():
            if target not in services:
                problems.append(f"{name} waits for {target}, which does not exist")
            elif how["condition"] == "service_healthy" and "healthcheck" not in services[target]:
                problems.append(f"{name} waits for the health of {target}, which has no healthcheck")
    return problems


def volume_problems(compose: dict[str, Any]) -> list[str]:
    declared, used, problems = set(compose["volumes"]), set(), []
    for name, service in compose["services"].items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if not source.startswith("."):
                used.add(source)
            elif not (ROOT / source).exists():
                problems.append(f"{name} mounts {source}, which does not exist")
    return problems + [f"volume {each} is declared or used, not both" for each in sorted(declared ^ used)]


def open_ports(compose: dict[str, Any]) -> list[str]:
    ports = [str(port) for service in compose["services"].values() for port in service.get("ports", [])]
    return [port for port in ports if not port.startswith("127.0.0.1:")]


def literal_secrets(compose: dict[str, Any]) -> list[str]:
    found = []
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) and not str(value).startswith("${"):
                found.append(f"{name}: {key}")
            inside = CREDENTIALS.search(str(value))
            if inside and not inside["password"].startswith("${"):
                found.append(f"{name}: {key}")
    return found


def example_variables() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_compose_file_fits_the_compose_schema() -> None:
    checked = check_schema(COMPOSE)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_schema_refuses_a_misspelt_key(compose: dict[str, Any], tmp_path: Path) -> None:
    compose["services"]["worker"]["comand"] = "prefect"
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(yaml.safe_dump(compose))
    assert check_schema(broken).returncode == 1


def test_services_wait_for_services_that_exist_and_tell_their_health(compose: dict[str, Any]) -> None:
    assert dependency_problems(compose) == []
    broken = deepcopy(compose)
    del broken["services"]["postgres"]["healthcheck"]
    broken["services"]["worker"]["depends_on"]["redis"] = {"condition": "service_started"}
    assert len(dependency_problems(broken)) == 3


def test_every_named_volume_is_declared_and_used_and_every_mounted_folder_exists(compose: dict[str, Any]) -> None:
    assert volume_problems(compose) == []
    del compose["volumes"]["mneme"]
    compose["services"]["worker"]["volumes"].append("./nowhere:/nowhere")
    assert len(volume_problems(compose)) == 2


def test_every_variable_stands_in_the_example_and_none_there_is_idle() -> None:
    assert set(VARIABLE.findall(COMPOSE.read_text())) == set(example_variables())


def test_every_port_is_bound_to_loopback(compose: dict[str, Any]) -> None:
    assert open_ports(compose) == []
    compose["services"]["mlflow"]["ports"].append("5000:5000")
    assert open_ports(compose) == ["5000:5000"]


def test_no_secret_is_written_down(compose: dict[str, Any]) -> None:
    assert literal_secrets(compose) == []
    assert [key for key, value in example_variables().items() if SECRET.search(key) and value] == []
    compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"] = "a"
    compose["services"]["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"] = "postgresql://a:b@postgres/mlflow"
    assert len(literal_secrets(compose)) == 2


def test_git_and_the_image_leave_the_env_file_out() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    assert "!.env" not in (ROOT / ".dockerignore").read_text()


def test_each_server_has_the_database_that_its_url_names(compose: dict[str, Any]) -> None:
    script = ROOT / "docker" / "initdb" / "databases.sh"
    assert os.access(script, os.X_OK)
    made = set(re.findall(r"create database (\w+);", script.read_text()))
    urls = [value for each in compose["services"].values() for value in each.get("environment", {}).values()]
    named = {url.rpartition("/")[2] for url in map(str, urls) if url.startswith("postgresql+")}
    assert made == named == {"prefect", "mlflow"}


def test_the_worker_serves_the_pool_that_is_made_and_keeps_the_home_in_a_volume(compose: dict[str, Any]) -> None:
    services = compose["services"]
    worker = services["worker"]["command"]
    pool = worker[worker.index("--pool") + 1]
    assert f"work-pool create {pool} " in " ".join(services["deploy"]["command"])
    home = re.search(r"MNEME_HOME=(\S+)", (ROOT / "Dockerfile").read_text())
    assert home is not None
    assert f"mneme:{home[1]}" in services["worker"]["volumes"]


def test_the_image_holds_the_tested_versions_and_runs_as_an_ordinary_user() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "--constraint constraints.txt" in next(line for line in lines if line.startswith("RUN pip install"))
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["mneme"]


def test_one_variable_says_how_much_servers_and_worker_write(compose: dict[str, Any]) -> None:
    levels = {
        name: sorted(key for key, value in service.get("environment", {}).items() if value == "${LOG_LEVEL:-WARNING}")
        for name, service in compose["services"].items()
    }
    assert levels == {
        "postgres": [],
        "prefect": ["PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_LOGGING_LEVEL"],
        "mlflow": ["MLFLOW_LOGGING_LEVEL"],
        "deploy": [],
        "worker": ["MLFLOW_LOGGING_LEVEL", "PREFECT_LOGGING_LEVEL"],
    }
    assert example_variables()["LOG_LEVEL"] == "WARNING"
