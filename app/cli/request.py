"""The options of `submit` and `plan` as the request's JSON."""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.cli.exits import UsageError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UsageError: there is no such file, or it holds something else.
    """
    return _read(path, "JSON", json.loads)


def read_spec(path: Path) -> dict[str, Any]:
    """Read a request: TOML where the file's name ends so, else JSON.

    Raises:
        UsageError: there is no such file, or it holds something else.
    """
    if path.suffix in {".yml", ".yaml"}:
        raise UsageError(f"A request is TOML or JSON, not {path.name}; `streamline init` writes one.")
    return _read(path, "TOML", tomllib.loads) if path.suffix == ".toml" else read_json(path)


def _read(path: Path, form: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a directory; name the file in it.") from None
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply to be a request.") from None
    except ValueError as error:
        raise UsageError(f"{path} is not {form}: {error}.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} must hold one object, as POST /v1/jobs takes it.")
    return value


def build(
    spec: Path | None,
    *,
    model: str | None,
    target: Mapping[str, Any],
    kind: str | None,
    selection: Mapping[str, Any] | None = None,
    calibration: str | None = None,
    evaluate: Sequence[str] | None = None,
    stride: int | None = None,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    gates: Sequence[str] | None = None,
    output: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    seed: int | None = None,
    config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The request: the file's content with the options on top.

    Raises:
        UsageError: an option that cannot be read, or no model or target at all.
    """
    request: dict[str, Any] = read_spec(spec) if spec else {}
    if model:
        repo, _, revision = model.partition("@")
        request["model"] = {"repo": repo} | ({"revision": revision} if revision else {})
    if config is not None:
        request["model"] = {"config": config}
    chosen = {name: value for name, value in target.items() if value is not None}
    if len(chosen) > 1:
        raise UsageError("Give one of --sparsity, --layers and --window, not several.")
    if chosen:
        request["target"] = chosen
    if kind:
        _section(request, "replacement")["kind"] = kind
    if calibration:
        _section(request, "calibration")["dataset"] = calibration
    if evaluate:
        _section(request, "evaluation")["perplexity"] = list(evaluate)
    if stride is not None:
        _section(request, "evaluation")["stride"] = stride
    for name, text in _pairs("--gate", gates or ()):
        task, dot, gate = name.rpartition(".")
        bars = _section(request, "gates")
        if dot:
            bars = bars.setdefault("tasks", {}).setdefault(task, {})
        bars[gate] = _number(name, text)
    if tasks:
        _section(request, "evaluation")["tasks"] = list(tasks)
    if limit is not None:
        _section(request, "evaluation")["limit"] = limit
    for section, values in (("selection", selection), ("output", output)):
        for name, value in (values or {}).items():
            if value is not None:
                _section(request, section)[name] = value
    if labels:
        _section(request, "labels").update(_pairs("--label", labels))
    if seed is not None:
        request["seed"] = seed
    _refuse_what_json_cannot_say(request)
    for needed, how in (("model", "--model team/name"), ("target", "--sparsity 0.25")):
        if needed not in request:
            raise UsageError(
                f"The request names no {needed}: add {how}, or give a SPEC that has it (`streamline init` makes one)."
            )
    return request


def _section(request: dict[str, Any], name: str) -> dict[str, Any]:
    """The part of the request that an option belongs to."""
    found = request.setdefault(name, {})
    if not isinstance(found, dict):
        raise UsageError(
            f"{name} of the request must be an object, not {json.dumps(found)}, for that option to go into."
        )
    return found


def _refuse_what_json_cannot_say(request: Mapping[str, Any]) -> None:
    try:
        json.dumps(request, allow_nan=False)
    except ValueError:
        raise UsageError("The request holds a number that is not finite (NaN, infinity, or too large).") from None
    except TypeError as error:  # a date, which TOML has and JSON has not
        raise UsageError(f"The request holds what JSON cannot say: {error}.") from None


def _pairs(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise UsageError(f"{option} takes name=value, not {text!r}.")
        pairs.append((key.strip(), value.strip()))
    return pairs


def _number(name: str, text: str) -> float:
    """Whole numbers as such: the service takes no 4000000.0 for a count, and any whole number for a ratio."""
    try:
        number = float(text)
        return int(text) if text.isdecimal() else int(number) if number.is_integer() else number
    except ValueError:
        raise UsageError(f"--gate {name}= takes a number, not {text!r}.") from None
