"""What reaches production is refused where that is certain, and told where it is suspected."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from safeguards.scope import ScopeVerdict, assess

HOST = "https://mlflow.example.com"
TRAIN = "import mlflow\nmlflow.set_tracking_uri({!r})\nmlflow.start_run()\n"


def _project(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _assess(
    folder: Path,
    command: str | list[str] = "python train.py",
    environ: Mapping[str, str] | None = None,
    declared: str = "local",
) -> ScopeVerdict:
    words = command.split() if isinstance(command, str) else command
    return assess(folder, words, {"HOME": str(folder)} | dict(environ or {}), declared)


@pytest.mark.parametrize("declared", ["production", "prod", "Production ", "live", "qa", ""])
def test_an_environment_that_is_not_allowed_is_refused(declared: str, tmp_path: Path) -> None:
    """Only local, dev and staging pass."""
    verdict = _assess(tmp_path, declared=declared)
    assert not verdict.allowed
    assert verdict.refusals[0].where == "configuration"


@pytest.mark.parametrize("declared", ["local", "dev", "staging"])
def test_the_three_environments_pass(declared: str, tmp_path: Path) -> None:
    """Nothing is said about them."""
    assert _assess(tmp_path, declared=declared) == ScopeVerdict()


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
@pytest.mark.parametrize("uri", [HOST, "databricks", "databricks://prod", "http://10.1.2.3:5000"])
def test_a_remote_tracker_in_the_environment_is_refused(
    name: str, uri: str, tmp_path: Path
) -> None:
    """Whatever the command is."""
    verdict = _assess(tmp_path, "make train", {name: uri})
    assert [concern.where for concern in verdict.refusals] == ["environment"]
    assert name in verdict.refusals[0].what
    assert verdict.refusals[0].fix


@pytest.mark.parametrize(
    "command",
    [
        f"env MLFLOW_TRACKING_URI={HOST} python train.py",
        f"env -u FOO MLFLOW_TRACKING_URI={HOST} nice -n 5 python train.py",
        "mlflow server --backend-store-uri postgresql://u:p@db.example.com/mlflow",
        f"python train.py --tracking-uri {HOST}",
        f"python train.py --tracking_uri={HOST}",
        "python train.py azureml://westeurope.api.azureml.ms/mlflow",
        "kubectl apply -f job.yaml",
        "/usr/local/bin/kubectl -n ml delete pod x",
        "timeout 60 kubectl apply -f job.yaml",
        "guard -q --project . run --label try --drill off -- kubectl apply -f job.yaml",
        "kubectl --context production apply -f job.yaml",
        "kubectl --server https://k8s.example.com get pods",
        "helm upgrade model ./chart",
        "kfp run create -e exp -f pipeline.yaml",
        "kfp --endpoint https://kf.example.com run list",
        "sagemaker deploy",
        "aws sagemaker create-training-job --cli-input-json file://x",
        "aws --region eu-west-1 sagemaker-runtime invoke-endpoint",
        "az ml job create -f job.yml",
        "gcloud ai custom-jobs create",
        "gcloud beta ai endpoints deploy-model",
        "databricks jobs run-now 1",
        "mlflow run . --backend databricks",
        "mlflow run . -b kubernetes",
        "mlflow deployments create -t sagemaker -m models:/x/1",
        "mlflow deployments create --target azureml://x -m models:/x/1",
        "uv run --extra gpu kfp run create",
        "python -m kfp run create",
        "sudo -E kubectl apply -f x",
    ],
)
def test_a_command_that_acts_on_production_is_refused(command: str, tmp_path: Path) -> None:
    """Tools of clusters and managed services, also behind wrappers."""
    verdict = _assess(tmp_path, command)
    assert {concern.where for concern in verdict.refusals} == {"command line"}
    assert "u:p" not in repr(verdict)


@pytest.mark.parametrize(
    "command",
    [
        "kubectl version --client",
        "kubectl --help",
        "kubectl kustomize overlays/dev",
        "kubectl apply -f x --dry-run=client",
        "kubectl --context kind-dev apply -f job.yaml",
        "kubectl --context minikube apply -f job.yaml",
        "kubectl --server https://127.0.0.1:6443 apply -f job.yaml",
        "helm lint chart",
        "helm --kube-context kind-dev install x ./chart",
        "kfp dsl compile --py pipeline.py --output pipeline.yaml",
        "kfp --endpoint http://localhost:8080 run create",
        "aws s3 ls",
        "aws --endpoint-url http://localhost:4566 sagemaker list-models",
        "az login",
        "gcloud auth login",
        "databricks --version",
        "mlflow run . --backend local",
        "mlflow run .",
        "mlflow server --backend-store-uri sqlite:///mlflow.db --port 5000",
        "mlflow deployments help",
        "python train.py --data https://example.com/data.csv",
        "curl -O https://example.com/data.csv",
        "python train.py --data s3://bucket/data",
        "python train.py --note production",
        "echo kubectl apply",
        "git push origin production",
    ],
)
def test_a_command_that_does_not_is_not_blocked(command: str, tmp_path: Path) -> None:
    """The same tools against this machine, or with words that only sound like it."""
    assert _assess(tmp_path, command).allowed


def test_the_current_cluster_decides(tmp_path: Path) -> None:
    """A context of any name whose server is on this machine passes; another does not."""
    text = (
        "current-context: {}\n"
        "contexts:\n- {{name: here, context: {{cluster: a}}}}\n"
        "- {{name: minikube, context: {{cluster: b}}}}\n"
        "clusters:\n- {{name: a, cluster: {{server: 'https://127.0.0.1:6443'}}}}\n"
        "- {{name: b, cluster: {{server: 'https://k8s.example.com'}}}}\n"
    )
    _project(tmp_path, {".kube/config": text.format("here"), "other": text.format("minikube")})
    assert _assess(tmp_path, "kubectl apply -f x").allowed
    assert not _assess(tmp_path, "kubectl --context minikube apply -f x").allowed
    assert not _assess(tmp_path, "kubectl apply", {"KUBECONFIG": str(tmp_path / "other")}).allowed


def test_the_command_overrides_the_environment(tmp_path: Path) -> None:
    """What `env` sets in front of the command is what counts."""
    command = "env MLFLOW_TRACKING_URI=sqlite:///mlflow.db python train.py"
    assert _assess(tmp_path, command, {"MLFLOW_TRACKING_URI": HOST}).allowed


@pytest.mark.parametrize(
    "line",
    [
        f"MLFLOW_TRACKING_URI={HOST}",
        f"export MLFLOW_TRACKING_URI='{HOST}'  # ours",
        f'  MLFLOW_REGISTRY_URI = "{HOST}"',
        "MLFLOW_TRACKING_URI=databricks",
    ],
)
def test_a_remote_tracker_in_dotenv_is_refused(line: str, tmp_path: Path) -> None:
    """With the line on which it stands, and never its other values."""
    _project(tmp_path, {".env": f"SECRET=canary\n{line}\n"})
    verdict = _assess(tmp_path)
    assert [concern.where for concern in verdict.refusals] == [".env:2"]
    assert "canary" not in repr(verdict)


def test_a_set_variable_wins_over_dotenv(tmp_path: Path) -> None:
    """The file is then only a warning."""
    _project(tmp_path, {".env": f"MLFLOW_TRACKING_URI={HOST}\n"})
    verdict = _assess(tmp_path, environ={"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"})
    assert verdict.allowed
    assert [concern.where for concern in verdict.warnings] == [".env:1"]


@pytest.mark.parametrize("name", ["guard.toml", "pyproject.toml"])
def test_a_remote_database_in_the_configuration_is_refused(name: str, tmp_path: Path) -> None:
    """The guard would restore into it."""
    prefix = "tool.guard." if name == "pyproject.toml" else ""
    text = f'[{prefix}x]\n[[{prefix}database]]\nurl = "postgresql://u:canary@db.example.com/m"\n'
    _project(tmp_path, {name: text})
    verdict = _assess(tmp_path, "true")
    assert [concern.where for concern in verdict.refusals] == [f"{name}:3"]
    assert "canary" not in repr(verdict)


@pytest.mark.parametrize(
    "code",
    [
        TRAIN.format(HOST),
        f"import mlflow as m\nURI = {HOST!r}\nm.set_tracking_uri(uri=URI)\n",
        f"from mlflow import set_registry_uri as s\ns({HOST!r})\n",
        f"import os\nos.environ['MLFLOW_TRACKING_URI'] = {HOST!r}\nimport mlflow\n",
        f"import os\nos.environ.setdefault('MLFLOW_TRACKING_URI', {HOST!r})\n",
        f"import os, mlflow\nmlflow.set_tracking_uri(os.getenv('T', {HOST!r}))\n",
        f"import os, mlflow\nmlflow.set_tracking_uri(os.environ.get('T') or {HOST!r})\n",
        (
            f"import mlflow\ndef main():\n    mlflow.set_tracking_uri({HOST!r})\n"
            "if __name__ == '__main__':\n    main()\n"
        ),
        (
            f"import mlflow\nclass T:\n  def go(self):\n    mlflow.set_tracking_uri({HOST!r})\n"
            "T().go()\n"
        ),
        f"import mlflow\ndef f(t):\n    mlflow.set_tracking_uri({HOST!r})\nstudy.optimize(f)\n",
        f"from mlflow.tracking import MlflowClient\nc = MlflowClient(tracking_uri={HOST!r})\n",
        "import mlflow\nmlflow.set_tracking_uri('databricks')\n",
        "import mlflow\nmlflow.set_tracking_uri(f'https://mlflow.example.com/{1}')\n",
        "import boto3\nboto3.client('sagemaker').create_training_job()\n",
        "import sagemaker\ns = sagemaker.Session()\n",
        "from sagemaker.pytorch import PyTorch\nPyTorch(instance_type='ml.p3.2xlarge').fit()\n",
        "from google.cloud import aiplatform\naiplatform.init(project='x')\n",
        "from azure.ai.ml import MLClient\nMLClient.from_config(credential=c)\n",
        "from azureml.core import Workspace\nw = Workspace.from_config()\n",
        "from databricks.sdk import WorkspaceClient\nw = WorkspaceClient()\n",
        "import kfp\nkfp.Client(host='https://kf.example.com').create_run_from_pipeline_func(p)\n",
        "import hopsworks\nproject = hopsworks.login()\n",
        "from sagemaker import get_execution_role\nrole = get_execution_role()\n",
        f"import mlflow\ntry:\n    mlflow.set_tracking_uri({HOST!r})\nfinally:\n    pass\n",
        f"import mlflow\nwith open('x') as f:\n    mlflow.set_tracking_uri({HOST!r})\n",
    ],
)
def test_code_that_reaches_production_is_refused(code: str, tmp_path: Path) -> None:
    """What the script does in any case is certain."""
    _project(tmp_path, {"train.py": code})
    verdict = _assess(tmp_path)
    assert len(verdict.refusals) == 1, verdict
    assert verdict.refusals[0].where.startswith("train.py:")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", f"lr: 0.1\ntracking_uri: {HOST}\n"),
        ("conf/base/mlflow.yml", f"mlflow:\n  tracking_uri: '{HOST}'\n"),
        ("settings.toml", f'[mlflow]\nregistry_uri = "{HOST}"\n'),
        ("configs/run.json", f'{{\n  "mlflow_tracking_uri": "{HOST}"\n}}\n'),
    ],
)
def test_settings_that_name_a_remote_tracker_are_a_warning(
    name: str, text: str, tmp_path: Path
) -> None:
    """Whether the command reads them is not known; a local one, or a comment, says nothing."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    _project(tmp_path, {"train.py": "print()\n", name: text})
    verdict = _assess(tmp_path)
    assert verdict.allowed, verdict
    (warning,) = verdict.warnings
    assert warning.where.startswith(f"{name}:")
    for harmless in ("http://localhost:5000", "sqlite:///mlflow.db", "${TRACKER}", "mlruns"):
        (tmp_path / name).write_text(text.replace(HOST, harmless))
        assert _assess(tmp_path).warnings == ()
    (tmp_path / name).write_text("# " + text.replace("\n", "\n# "))
    assert _assess(tmp_path).warnings == ()


@pytest.mark.parametrize(
    "code",
    [
        f"import mlflow, sys\nif '--remote' in sys.argv:\n    mlflow.set_tracking_uri({HOST!r})\n",
        f"import mlflow\ndef never():\n    mlflow.set_tracking_uri({HOST!r})\n",
        (
            f"import mlflow, sys\ndef use():\n    mlflow.set_tracking_uri({HOST!r})\n"
            "if sys.argv:\n    use()\n"
        ),
        "import mlflow\nmlflow.set_tracking_uri(f'https://{host}:5000')\n",
        "import wandb\nwandb.init(project='x')\n",
        "import kfp\nkfp.Client()\n",
        "from sagemaker.pytorch import PyTorch\nPyTorch(instance_type=args.kind).fit()\n",
        f"import mlflow\nmlflow.set_tracking_uri({HOST!r}) if remote else None\n",
        f"import mlflow\ntry:\n    x()\nexcept OSError:\n    mlflow.set_tracking_uri({HOST!r})\n",
    ],
)
def test_code_that_may_reach_it_is_a_warning(code: str, tmp_path: Path) -> None:
    """Conditions and functions that nobody calls are said aloud and pass."""
    _project(tmp_path, {"train.py": code})
    verdict = _assess(tmp_path)
    assert verdict.allowed, verdict
    assert len(verdict.warnings) == 1


def test_imported_modules_of_the_project_are_read(tmp_path: Path) -> None:
    """The script's own packages, not those that it does not import."""
    _project(
        tmp_path,
        {
            "train.py": "from pkg import tracking\nfrom pkg.steps.fit import fit\nfit()\n",
            "pkg/__init__.py": "",
            "pkg/tracking.py": "import mlflow\nfrom pkg.settings import URI\n",
            "pkg/settings.py": "import pkg.tracking\nURI = 1\n",
            "pkg/steps/__init__.py": "",
            "pkg/steps/fit.py": f"import mlflow\ndef fit():\n  mlflow.set_tracking_uri({HOST!r})\n",
            "deploy.py": TRAIN.format(HOST),
        },
    )
    verdict = _assess(tmp_path)
    assert [concern.where for concern in verdict.refusals] == ["pkg/steps/fit.py:3"]


@pytest.mark.parametrize(
    "command",
    [
        "python -m pkg.train",
        "python -u -X dev pkg/train.py",
        "uv run python pkg/train.py",
        "torchrun --nproc-per-node 2 pkg/train.py",
        "accelerate launch --num_processes 2 pkg/train.py",
        "python -m torch.distributed.run --nnodes 1 pkg/train.py",
        "poetry run python3.11 pkg/train.py",
        "conda run -n ml python pkg/train.py",
        "env A=b nohup python pkg/train.py",
        "./pkg/train.py",
        "sh -c 'cd . && python pkg/train.py'",
        "bash run.sh",
        "./run.sh",
    ],
)
def test_the_script_is_found_behind_its_launcher(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is started, it is the same script."""
    _project(
        tmp_path, {"pkg/train.py": TRAIN.format(HOST), "run.sh": "set -e\npython pkg/train.py\n"}
    )
    monkeypatch.chdir(tmp_path)
    verdict = _assess(tmp_path, shlex.split(command))
    assert [concern.where for concern in verdict.refusals] == ["pkg/train.py:2"]


def test_code_on_the_command_line_is_read(tmp_path: Path) -> None:
    """`python -c` runs what stands there."""
    verdict = _assess(tmp_path, ["python", "-c", TRAIN.format(HOST)])
    assert [concern.where for concern in verdict.refusals] == ["command line:2"]


@pytest.mark.parametrize(
    ("script", "refused"),
    [
        ("kubectl apply -f x\n", True),
        (f"export MLFLOW_TRACKING_URI={HOST}\npython train.py\n", True),
        ("cd x && kubectl apply \\\n  -f x\n", True),
        ("echo a; kubectl apply -f x\n", True),
        ("python train.py | tee log; az ml job create\n", True),
        ("# kubectl apply -f x\n", False),
        ('if [ "$1" = prod ]; then\n  kubectl apply -f x\nfi\n', False),
        ('[ "$1" = prod ] && kubectl apply -f x\n', False),
        ("deploy() {\n  kubectl apply -f x\n}\n", False),
        ("case $1 in\n  prod) kubectl apply -f x ;;\nesac\n", False),
        ("exit 0\nkubectl apply -f x\n", False),
        ("cat <<EOF\nkubectl apply -f x\nEOF\n", False),
        ("cat <<'END' > notes\nkubectl apply -f x\nEND\npython train.py\n", False),
        ('echo "first\nkubectl apply -f x\n"\n', False),
        ("train || kubectl apply -f x\n", False),
    ],
)
def test_a_shell_script_is_read(script: str, refused: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """What stands on its way in any case is certain."""
    _project(tmp_path, {"run.sh": script})
    assert _assess(tmp_path, f"bash {tmp_path}/run.sh").allowed is not refused


def test_an_mlproject_is_judged_by_who_runs_it(tmp_path: Path) -> None:
    """Refused where `mlflow run` uses it, else a warning."""
    text = (
        "name: x\ndocker_env:\n  image: y\n"
        f"  environment: [[MLFLOW_TRACKING_URI, '{HOST}'], HOME]\n"
        "entry_points:\n  main:\n    command: python train.py\n"
    )
    _project(tmp_path, {"MLproject": text})
    assert [c.where for c in _assess(tmp_path, "mlflow run .").refusals] == ["MLproject:4"]
    verdict = _assess(tmp_path, "python train.py")
    assert verdict.allowed
    assert len(verdict.warnings) == 1


@pytest.mark.parametrize(
    "text",
    [
        "provider: aws\nregistry: s3://bucket/registry.db\n",
        "provider: local\nregistry:\n  registry_type: remote\n  path: registry.example.com:6570\n",
        "provider: local\nregistry: data/r.db\nonline_store:\n  type: dynamodb\n",
        "provider: local\nregistry: {registry_type: sql, path: 'postgresql://h.example.com/f'}\n",
        "provider: local\nregistry: r.db\nonline_store: {type: postgres, host: h.example.com}\n",
        "provider: local\nregistry: r.db\noffline_store:\n  type: snowflake.offline\n",
    ],
)
def test_a_remote_feature_store_is_judged_by_who_changes_it(text: str, tmp_path: Path) -> None:
    """Refused for `feast apply`, a warning for anything else."""
    _project(tmp_path, {"features/feature_store.yaml": text})
    assert not _assess(tmp_path, "feast apply").allowed
    verdict = _assess(tmp_path, "python train.py")
    assert verdict.allowed
    assert verdict.warnings


@pytest.mark.parametrize(
    "name", ["SM_TRAINING_ENV", "DATABRICKS_RUNTIME_VERSION", "AZUREML_RUN_ID"]
)
def test_inside_a_managed_service_it_is_refused(name: str, tmp_path: Path) -> None:
    """The service says itself that this is one of its machines."""
    assert not _assess(tmp_path, environ={name: "x"}).allowed


def test_words_of_production_in_the_environment_are_a_warning(tmp_path: Path) -> None:
    """A profile of that name may be used or not."""
    verdict = _assess(tmp_path, environ={"AWS_PROFILE": "acme-prod", "APP_ENV": "production"})
    assert verdict.allowed
    assert len(verdict.warnings) == 2


def test_bad_files_do_no_harm(tmp_path: Path) -> None:
    """A FIFO, broken syntax, a huge file, another encoding: judged as far as they can be read."""
    os.mkfifo(tmp_path / ".env")
    (tmp_path / "guard.toml").write_text("[[[")
    (tmp_path / "MLproject").write_bytes(b"\xff\xfe: [")
    (tmp_path / "feature_store.yaml").write_text("- just\n- a list\n")
    (tmp_path / "pyproject.toml").write_text("[tool]\nguard = 3\n")
    (tmp_path / "train.py").write_bytes(b"import mlflow\n\xff = (\n")
    assert _assess(tmp_path) == ScopeVerdict()
    (tmp_path / "train.py").write_text("(" * 5000)
    assert _assess(tmp_path) == ScopeVerdict()
    (tmp_path / "train.py").write_text("x = 1\n" + "#" * 2_000_000)
    assert _assess(tmp_path) == ScopeVerdict()
    for odd in ([""], ["\0"], ["env"], ["python", "-m"], ["sh", "-c"], ["bash", "-o"], []):
        assert _assess(tmp_path, odd).allowed


def test_nothing_is_run_or_written(tmp_path: Path) -> None:
    """An assessment reads: modules of the project are not imported."""
    _project(tmp_path, {"train.py": "import evil\n", "evil.py": "open('touched', 'w')\n"})
    before = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    _assess(tmp_path)
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")} == before
