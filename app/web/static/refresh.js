// A list on a page, kept up to date while somebody looks at it: one small question every few seconds.

const EVERY_MS = 3000;

// Rows carry `data-KEY`, which names them, and `data-version`, which changes with what they show. Returned is the way to
// look at once.
export function keepFresh(list, key) {
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
    const row = list.contains(focused) ? focused.closest(`[data-${key}]`)?.dataset[key] : null;
    made.innerHTML = text;
    const ticked = new Set([...list.querySelectorAll("input:checked")].map(input => input.value));
    const kept = new Map([...list.querySelectorAll(`[data-${key}]`)].map(old => [old.dataset[key], old]));
    for (const fresh of made.content.querySelectorAll(`[data-${key}]`)) {
      const old = kept.get(fresh.dataset[key]);
      if (old?.dataset.version === fresh.dataset.version) fresh.replaceWith(old);
      else if (ticked.has(fresh.dataset[key])) fresh.querySelector("input").checked = true;
    }
    list.replaceChildren(made.content);
    if (list.contains(focused)) focused.focus({preventScroll: true});
    else if (row) focusIn([...list.querySelectorAll(`[data-${key}]`)].find(one => one.dataset[key] === row), focused);
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
  return look;
}

// Whoever works with the keyboard stays at the control of the same kind in the row that has changed.
function focusIn(row, before) {
  row?.querySelector(before.tagName)?.focus({preventScroll: true});
}
