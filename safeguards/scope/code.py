"""Python code of the command: what it connects to, read without running it.

Only the script that the command runs and the modules of the project that it imports are read,
by their syntax: a comment, a docstring or a mere import says nothing. What stands in a
condition, or in a function that nobody calls, is a suspicion; the rest is what the script does.
"""

from __future__ import annotations

import ast
import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from safeguards.scope.model import Concern, Reach
from safeguards.scope.shell import shown
from safeguards.scope.targets import TRACKING_NAMES, judge, tracker_concern

_MAX_FILES = 500
_MAX_BYTES = 1_000_000
_SETTERS = {"set_tracking_uri": "MLflow tracker", "set_registry_uri": "MLflow registry"}
_URI_KEYWORDS = {"tracking_uri": "MLflow tracker", "registry_uri": "MLflow registry"}
_SERVICES = {
    "sagemaker.Session": "SageMaker",
    "sagemaker.session.Session": "SageMaker",
    "sagemaker.get_execution_role": "SageMaker",
    "sagemaker.session.get_execution_role": "SageMaker",
    "google.cloud.aiplatform": "Vertex AI",
    "vertexai.init": "Vertex AI",
    "azure.ai.ml.MLClient": "Azure ML",
    "azureml.core.Workspace": "Azure ML",
    "databricks.sdk.WorkspaceClient": "Databricks",
    "databricks.connect.DatabricksSession": "Databricks",
    "hopsworks.login": "Hopsworks",
}
_SERVICE_FIX = "run it against local services, or without guard; production is never guarded"


@dataclass(slots=True)
class _Findings:
    """What the modules hold.

    Attributes:
        uses: Each target that is named, and the function in which it is.
        calls: Who is called in any case, and in which function.
        imports: Modules, and whether they are imported in any case.
    """

    uses: list[tuple[Concern, str | None]] = field(default_factory=list)
    calls: set[tuple[str, str | None]] = field(default_factory=set)
    imports: dict[str, bool] = field(default_factory=dict)


def assess_code(entry: Path, project: Path, environ: Mapping[str, str]) -> Iterator[Concern]:
    """Yield what a script and the project's modules that it imports connect to."""
    findings = _Findings()
    todo, seen = [(entry, True)], {entry.resolve()}
    while todo and len(seen) <= _MAX_FILES:
        path, certain = todo.pop(0)
        findings.imports = {}
        _scan(_text_of(path), shown(path, project), environ, findings, certain=certain)
        for module, always in sorted(findings.imports.items()):
            for folder in dict.fromkeys((path.parent, entry.parent, project, project / "src")):
                found = _module_file(folder, module)
                if found is not None and found.resolve() not in seen:
                    seen.add(found.resolve())
                    todo.append((found, certain and always))
    yield from _judged(findings)


def assess_text(text: str, where: str, environ: Mapping[str, str]) -> Iterator[Concern]:
    """Yield what code given on the command line (``python -c``) connects to."""
    findings = _Findings()
    _scan(text, where, environ, findings, certain=True)
    yield from _judged(findings)


def _judged(findings: _Findings) -> Iterator[Concern]:
    reached: set[str | None] = {None}
    while more := {callee for callee, caller in findings.calls if caller in reached} - reached:
        reached |= more
    for concern, function in findings.uses:
        yield replace(concern, certain=concern.certain and function in reached)


def _text_of(path: Path) -> str:
    with contextlib.suppress(OSError):
        if os.path.getsize(path) <= _MAX_BYTES:
            return path.read_text("utf-8", "replace")
    return ""


def _scan(
    text: str, where: str, environ: Mapping[str, str], findings: _Findings, *, certain: bool
) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in the user's code is not ours to tell
            tree = ast.parse(text)
        reader = _Reader(where, environ, findings)
        reader.conditions = 0 if certain else 1
        reader.visit(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # the command will say so itself


class _Reader(ast.NodeVisitor):
    """Walks one module, keeping track of names, conditions and functions."""

    def __init__(self, where: str, environ: Mapping[str, str], findings: _Findings) -> None:
        self.where = where
        self.environ = environ
        self.findings = findings
        self.names: dict[str, str] = {}
        self.constants: dict[str, str | None] = {}
        self.conditions = 0
        self.function: str | None = None

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._note_import(alias.name)
            bound = alias.asname or alias.name.partition(".")[0]
            self.names[bound] = alias.name if alias.asname else bound

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        self._note_import(module)
        for alias in node.names:
            dotted = f"{module}.{alias.name}".lstrip(".")
            self._note_import(dotted)
            self.names[alias.asname or alias.name] = dotted

    def visit_If(self, node: ast.If) -> None:
        if _is_main(node.test):
            self._visit_all(node.body)
            self._conditional(node.orelse)
            return
        self.visit(node.test)
        if isinstance(node.test, ast.Constant) or _is_type_checking(node.test):
            taken = isinstance(node.test, ast.Constant) and bool(node.test.value)
            self._visit_all(node.body if taken else node.orelse)
            return
        self._conditional([*node.body, *node.orelse])

    def visit_Try(self, node: ast.Try) -> None:
        self._visit_all(node.body)
        self._conditional([*node.handlers, *node.orelse])
        self._visit_all(node.finalbody)

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        self._conditional([*node.body, *node.orelse])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        self._conditional([node.body, node.orelse])

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        self._conditional(node.cases)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        outer, conditions = self.function, self.conditions
        special = node.name.startswith("__") and node.name.endswith("__")
        self.function, self.conditions = (outer if special else node.name), 0
        self._visit_all(node.body)
        self.function, self.conditions = outer, conditions

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the name is ast's

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        value = self._text(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                # Assigned twice, it is not known which one holds.
                known = self.constants.get(target.id, value)
                self.constants[target.id] = value if known == value else None
            elif isinstance(target, ast.Subscript):
                name = self._text(target.slice)
                if self._dotted(target.value) == "os.environ" and name in TRACKING_NAMES:
                    self._note_tracker(name or "", value, node)

    def visit_Call(self, node: ast.Call) -> None:
        dotted = self._dotted(node.func)
        last = dotted.rpartition(".")[2]
        if self.conditions == 0:
            # A function that is handed to a call (`study.optimize(objective)`) is called too.
            for part in (node.func, *node.args, *(k.value for k in node.keywords)):
                if isinstance(part, ast.Name | ast.Attribute):
                    callee = part.id if isinstance(part, ast.Name) else part.attr
                    self.findings.calls.add((callee, self.function))
        arguments = [self._text(argument) for argument in node.args]
        if last in _SETTERS and node.args and dotted.startswith("mlflow."):
            self._note_tracker(_SETTERS[last], arguments[0], node)
        if dotted == "os.environ.setdefault" and arguments[:1] and len(arguments) > 1:
            name = arguments[0] or ""
            if name in TRACKING_NAMES and not self.environ.get(name):
                self._note_tracker(name, arguments[1], node)
        for keyword in node.keywords:
            named = _URI_KEYWORDS.get(keyword.arg or "")
            if keyword.arg == "uri" and last in _SETTERS and dotted.startswith("mlflow."):
                named = _SETTERS[last]
            if named is not None and self._knows_mlflow():
                self._note_tracker(named, self._text(keyword.value), node)
        self._note_service(dotted, arguments, node)
        self.generic_visit(node)

    def _note_service(self, dotted: str, arguments: Sequence[str | None], node: ast.Call) -> None:
        keywords = {k.arg: self._text(k.value) for k in node.keywords if k.arg}
        service = next(
            (s for prefix, s in _SERVICES.items() if f"{dotted}.".startswith(f"{prefix}.")), None
        )
        certain = True
        if dotted in {"boto3.client", "boto3.resource"}:
            name = arguments[0] if arguments else keywords.get("service_name")
            if name and name.startswith("sagemaker"):
                local = judge(keywords.get("endpoint_url") or "https://aws") is Reach.LOCAL
                service = None if local else "SageMaker"
        elif dotted.startswith("sagemaker.") and "instance_type" in keywords:
            kind = keywords["instance_type"]
            service = None if kind and kind.startswith("local") else "SageMaker"
            certain = kind is not None
        elif dotted == "kfp.Client":
            host = keywords.get("host") or (arguments[0] if arguments else None)
            reach = judge(host) if host else Reach.UNKNOWN
            service = None if reach is Reach.LOCAL else "Kubeflow"
            certain = reach is Reach.REMOTE
        elif dotted == "wandb.init":
            service = self._weights_and_biases(keywords.get("mode"))
            certain = False
        if service is not None:
            self._note(
                Concern(
                    what=service,
                    where=f"{self.where}:{node.lineno}",
                    why=f"`{dotted}` connects to a service that guard cannot put back",
                    fix=_SERVICE_FIX,
                    certain=certain,
                )
            )

    def _weights_and_biases(self, mode: str | None) -> str | None:
        chosen = mode or self.environ.get("WANDB_MODE") or "online"
        base = self.environ.get("WANDB_BASE_URL")
        local = base is not None and judge(base) is Reach.LOCAL
        return None if local or chosen in {"offline", "disabled", "dryrun"} else "Weights & Biases"

    def _note_tracker(self, name: str, uri: str | None, node: ast.AST) -> None:
        if uri is None:
            return
        where = f"{self.where}:{getattr(node, 'lineno', 1)}"
        concern = tracker_concern(name, uri, where)
        if concern is not None:
            self._note(concern)

    def _note(self, concern: Concern) -> None:
        certain = concern.certain and self.conditions == 0
        self.findings.uses.append((replace(concern, certain=certain), self.function))

    def _note_import(self, module: str) -> None:
        always = self.conditions == 0 and self.function is None
        self.findings.imports[module] = self.findings.imports.get(module, False) or always

    def _conditional(self, nodes: Sequence[ast.AST]) -> None:
        self.conditions += 1
        self._visit_all(nodes)
        self.conditions -= 1

    def _visit_all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def _knows_mlflow(self) -> bool:
        return any("mlflow" in module.lower() for module in self.names.values())

    def _dotted(self, node: ast.AST) -> str:
        """Return the full name of what is called, through the module's imports."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.names:
            return ""
        return ".".join([self.names[node.id], *reversed(parts)])

    def _text(self, node: ast.AST) -> str | None:
        """Return the text that an expression gives, as far as it is known before it runs."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.Name):
            return self.constants.get(node.id)
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "${}" for p in node.values]
            return "".join(map(str, parts))
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            return next((text for part in node.values if (text := self._text(part))), None)
        return self._variable(node)

    def _variable(self, node: ast.AST) -> str | None:
        """Return the value of an environment variable that an expression reads, or its default."""
        if isinstance(node, ast.Subscript) and self._dotted(node.value) == "os.environ":
            return self.environ.get(self._text(node.slice) or "")
        if not isinstance(node, ast.Call) or not node.args:
            return None
        if self._dotted(node.func) not in {"os.environ.get", "os.getenv"}:
            return None
        default = self._text(node.args[1]) if len(node.args) > 1 else None
        return self.environ.get(self._text(node.args[0]) or "") or default


def _is_main(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
    )


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _module_file(folder: Path, module: str) -> Path | None:
    base = folder.joinpath(*module.split(".")) if module else folder
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None
