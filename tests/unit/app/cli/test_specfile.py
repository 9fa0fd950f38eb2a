"""The request that `init` writes."""

import re
import tomllib
from typing import Any

from app.cli.specfile import commented
from app.jobs.spec.request import JobRequest


def test_the_file_as_it_is_written_asks_for_its_model_and_target_alone() -> None:
    assert tomllib.loads(commented("team/llama", 0.3)) == {
        "model": {"repo": "team/llama"},
        "target": {"sparsity": 0.3},
    }


def test_each_line_that_is_commented_out_is_one_that_the_service_takes() -> None:
    lines = commented("team/llama", 0.3).splitlines()
    tried, section = 0, ""
    for line in lines:
        section = line.strip("# []") if re.fullmatch(r"(# )?\[\w+\]", line) else section
        if not re.match(r"# \w+ = ", line):
            continue
        request: dict[str, Any] = {"model": {"repo": "team/llama"}, "target": {"sparsity": 0.3}}
        chosen = tomllib.loads(line[2:])
        if section == "target":
            request[section] = chosen  # instead of the sparsity
        elif section == "healing":
            request[section] = {"kind": "lora"} | chosen
        elif section:
            request[section] = request.get(section, {}) | chosen
        else:
            request |= chosen
        JobRequest.model_validate(request)
        tried += 1
    assert tried > 40
