// The list of jobs, kept up to date while somebody looks at it: one small question every few seconds.

const EVERY_MS = 3000;
const list = document.getElementById("list");
let etag = list.dataset.etag, timer = null;

async function look() {
  const address = new URL(location.href);
  address.searchParams.set("part", "list");
  const answer = await fetch(address, {headers: {"If-None-Match": etag, Accept: "text/html"}, cache: "no-store"}).catch(() => null);
  if (answer?.ok && !answer.redirected) {
    etag = answer.headers.get("ETag");
    replaceWith(await answer.text());
  }
}

// Rows that have not changed stay what they are, with their focus and their ticks.
function replaceWith(text) {
  const made = document.createElement("template"), focused = document.activeElement;
  made.innerHTML = text;
  const ticked = new Set([...list.querySelectorAll("input:checked")].map(input => input.value));
  const kept = new Map([...list.querySelectorAll("[data-job]")].map(row => [row.dataset.job, row]));
  for (const row of made.content.querySelectorAll("[data-job]")) {
    const old = kept.get(row.dataset.job);
    if (old?.dataset.version === row.dataset.version) row.replaceWith(old);
    else if (ticked.has(row.dataset.job)) row.querySelector("input").checked = true;
  }
  list.replaceChildren(made.content);
  if (list.contains(focused)) focused.focus({preventScroll: true});
}

function schedule() {
  clearInterval(timer);
  if (!document.hidden) timer = setInterval(look, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  schedule();
  if (!document.hidden) look();
});
schedule();

// A choice is a filter at once; text waits for the button or Enter.
for (const choice of document.querySelectorAll("#filters select"))
  choice.addEventListener("change", () => choice.form.requestSubmit());
