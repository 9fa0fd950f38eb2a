"""The revisions of a model's page: what each job made of it, for going back to one; no more of a job than its page."""

import re

import pytest
from sqlalchemy import update

from app.db.models import JobRow
from app.hub.publishing import StagedFile, commit_files
from app.jobs import service
from tests.integration.api.conftest import JOB, MODEL
from tests.integration.hub.keyed import PRIVATE, Keyed

REPO = "team/rolled"


@pytest.fixture(scope="module")
def made(keyed: Keyed) -> list[str]:
    """Ids of three jobs, oldest first: passed; missed its gates; passed, but names a private repository."""
    spec = keyed.ask("owner", "/v1/jobs", "POST", json=JOB).json()["spec"]
    ids = []
    for number, (verdict, ratio, model) in enumerate(
        (("pass", 1.03, MODEL), ("fail", 1.77, MODEL), ("pass", 1.25, PRIVATE))
    ):
        own = spec | {"model": {"repo": model, "revision": "0" * 40}, "output": spec["output"] | {"repo": REPO}}
        blob = keyed.service.parts.blobs.put_bytes(f"weights {number}".encode())
        with keyed.service.sessions.begin() as session:
            id_ = service.create(session, own, owner=keyed.ids["owner"]).id
            metrics = {"perplexity_ratio": ratio, "checkpoint_bytes": {"dense": 9e6, "pruned": 7_341_136}}
            result = {"removed_layers": [5, 6, 7 + number], "metrics": metrics}
            values = {"state": "succeeded", "verdict": verdict, "result": result}
            session.execute(update(JobRow).where(JobRow.id == id_).values(**values))
            commit_files(
                session, REPO, [StagedFile("model.safetensors", blob.size, blob.sha256, blob.git_oid)], "Cut",
                ref="main" if verdict == "pass" else None, tag=f"job-{id_}", job_id=id_,
            )  # fmt: skip
        ids.append(id_)
    return ids


def rows(keyed: Keyed, who: str) -> list[str]:
    """What each row of the table says, without tags."""
    page = keyed.ask(who, f"/models/{REPO}").text
    body = page.partition('class="stacked revisions"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL)]


def test_every_jobs_result_is_a_row_with_what_was_removed_and_how_it_did_newest_first(
    keyed: Keyed, made: list[str]
) -> None:
    first, second, third = made
    newest, missed, oldest = rows(keyed, "owner")
    assert newest.startswith(f"main is here job-{third[:12]} ")
    assert missed.startswith(f"job-{second[:12]} ")
    assert oldest.startswith(f"job-{first[:12]} ")
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d layers 5 to 7 7\.34 MB ×1\.03 passed job " + first[:12], oldest)
    assert "layers 5 to 6 and layer 8 7.34 MB ×1.77 missed" in missed
    assert [("main is here" in row) for row in (newest, missed, oldest)] == [True, False, False]


def test_of_a_job_that_the_key_may_not_see_the_row_tells_nothing_that_its_page_would(
    keyed: Keyed, made: list[str]
) -> None:
    newest, missed, _ = rows(keyed, "reader")
    assert newest.endswith("a job that this key may not see")
    assert "×" not in newest
    assert "layer" not in newest
    assert "×1.77" in missed
