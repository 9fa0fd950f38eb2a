"""A model's page as people see it: card, files, lines to copy, revisions, and the way up to the dense model."""

import pytest
from playwright.sync_api import Browser
from sqlalchemy import update

from app.auth import keys
from app.auth.scopes import Scope
from app.db.models import JobRow
from app.hub import repository
from app.hub.publishing import StagedFile, commit_files
from app.hub.revisions import repo_named, resolve
from tests.browser.conftest import visit
from tests.integration.api.conftest import MODEL, Service
from tests.unit.app.report.reports import JOB, full
from worker.model_card import CardFacts, model_card

pytestmark = pytest.mark.chromium

CARD = b"""---
license: mit
tags: [tiny]
---
# A pruned model

| text | dense | pruned |
|---|---|---|
| stories | 12.9 | 13.2 |

<img src="https://elsewhere.example/x.png" onerror="document.title='run'"><script>document.title = "run"</script>
"""


@pytest.fixture(scope="module")
def pruned(service: Service) -> str:
    """A repository that a job made out of the bundled model."""
    job_id: str = service.submit(labels={"page": "model"})["id"]
    names = {
        "README.md": CARD,
        "config.json": b"{}",
        "modeling_x.py": b"x = 1\n",
        "model.safetensors": bytes(2_000_000),
    }
    blobs = {name: service.parts.blobs.put_bytes(content) for name, content in names.items()}
    staged = [StagedFile(name, blob.size, blob.sha256, blob.git_oid) for name, blob in blobs.items()]
    with service.sessions.begin() as session:
        dense = resolve(session, repo_named(session, MODEL), "main")
        spec = {**repository_spec(service, job_id), "model": {"repo": MODEL, "revision": dense.oid}}
        session.execute(update(JobRow).where(JobRow.id == job_id).values(spec=spec))
        commit_files(session, "team/pruned", staged, "Replace layers\n\nAll of it.", tag="job-1", job_id=job_id)
    return job_id


def repository_spec(service: Service, job_id: str) -> dict[str, object]:
    spec: dict[str, object] = service.http.get(f"/v1/jobs/{job_id}").json()["spec"]
    return spec


@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_a_models_page_tells_what_it_is_and_where_it_comes_from(
    browser: Browser, service: Service, pruned: str, width: int
) -> None:
    with visit(browser, service, "/models/team/pruned", width=width) as found:
        page = found.page
        words = page.inner_text("main")
        for line in (
            f"export HF_ENDPOINT={service.url}",
            "hf download team/pruned",
            "vllm serve team/pruned --trust-remote-code",
            "from_pretrained('team/pruned', trust_remote_code=True)",
            f"{service.url}/team/pruned/resolve/main/README.md",
        ):
            assert line in words
        assert page.locator("article.card h1").inner_text() == "A pruned model"
        assert page.locator("article.card td").all_inner_texts() == ["stories", "12.9", "13.2"]
        assert "2.00 MB" in words
        assert page.locator("code[title]").count() == 4
        assert page.locator(".lineage li").count() == 2
        assert "the dense model" in page.locator(".lineage").inner_text()
        assert page.title() == "team/pruned · Streamline", "nothing of the card has run"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        assert found.asked_elsewhere == []
        page.get_by_role("link", name=MODEL).click()
        page.wait_for_url(f"**/models/{MODEL}*")
        assert page.locator("h1").first.inner_text() == MODEL


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_shows_all_columns_of_what_was_measured(browser: Browser, service: Service, dark: bool) -> None:
    spec = JOB["spec"] | {"output": {"repo": "team/measured", "format": "auto", "dtype": "bfloat16"}}
    card = model_card(CardFacts(spec, full(), JOB["gates"], {}, {}, custom_code=False)).encode()
    blob = service.parts.blobs.put_bytes(card)
    with service.sessions.begin() as session:
        commit_files(session, "team/measured", [StagedFile("README.md", blob.size, blob.sha256, blob.git_oid)], "card")
    with visit(browser, service, "/models/team/measured", width=390, dark=dark) as found:
        article = found.page.locator("article.card")
        assert article.evaluate("card => card.scrollWidth <= card.clientWidth")
        column = article.locator("table").first.locator("th").last
        assert column.inner_text() == "this model"
        box = column.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390


@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_a_models_revisions_are_rows_that_fit(browser: Browser, service: Service, pruned: str, width: int) -> None:
    with visit(browser, service, "/models/team/pruned", width=width) as found:
        table = found.page.locator("[aria-label='Revisions']")
        assert table.evaluate("card => card.scrollWidth <= card.clientWidth")
        row = table.locator("tbody tr")
        assert row.count() == 1
        assert all(said in row.inner_text() for said in ("main is here", "job-1", "shown here", pruned[:12]))


def test_the_list_leads_to_each_model_and_revisions_to_theirs(browser: Browser, service: Service, pruned: str) -> None:
    with visit(browser, service, "/models") as found:
        found.page.get_by_role("link", name="team/pruned").click()
        found.page.wait_for_url("**/models/team/pruned*")
        found.page.get_by_role("link", name="job-1").click()
        found.page.wait_for_url("**revision=job-1*")
        assert "--revision job-1" in found.page.inner_text("main")
        assert found.said == []


def test_the_address_that_clients_print_leads_to_the_page(service: Service, pruned: str) -> None:
    with service.sessions() as session:
        oid = repository.commit_of_ref(session, repo_named(session, "team/pruned").id, "branch", "main")
        assert oid is not None
    for where in (f"commit/{oid.oid}", "tree/main/", "tree/job-1"):
        answer = service.http.get(f"/team/pruned/{where}", follow_redirects=True)
        assert answer.status_code == 200
        assert "A pruned model" in answer.text
    assert service.http.get("/models/team/absent").status_code == 404
    assert service.http.get("/models/team/pruned?revision=absent").status_code == 404


def test_a_service_with_keys_shows_its_pages_to_who_types_one(browser: Browser, service: Service, pruned: str) -> None:
    with service.sessions.begin() as session:
        row, key = keys.create(session, "person", Scope.READ)
    context = browser.new_context(http_credentials={"username": "anything", "password": key})
    try:
        page = context.new_page()
        page.goto(f"{service.url}/models/team/pruned")
        assert page.url == f"{service.url}/login?next=/models/team/pruned"
        page.get_by_role("button", name="Use the browser's own dialog").click()
        page.wait_for_url(f"{service.url}/models/team/pruned")
        assert page.title() == "team/pruned · Streamline"
        asked = "async (url) => (await fetch(url)).status"
        for url in (f"/v1/jobs/{pruned}", "/team/pruned/resolve/main/config.json"):
            assert page.evaluate(asked, url) == 200, "what the page asks for and leads to has the key too"
    finally:
        context.close()
        with service.sessions.begin() as session:
            session.delete(session.merge(row))
