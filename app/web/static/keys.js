// The page of API keys: makes one and shows it once, and revokes one after asking.

import {collect, showAtFields} from "./fields.js";
import {Problem, post, say} from "./request.js";

const part = id => document.getElementById(id);
const form = part("new"), list = part("list"), made = part("made"), confirm = part("confirm");

async function make() {
  const button = form.querySelector("button.main");
  button.disabled = true;
  say(part("done"), "");
  part("secret").textContent = "";
  made.hidden = true;
  try {
    const key = await post("/v1/keys", collect(form));
    showErrors([]);
    part("secret").textContent = key.key;
    made.hidden = false;
    made.focus();
    form.reset();
    await refresh();
  } catch (error) {
    const lost = {detail: "The service does not answer. If the key is in the list below after a while, it was made: revoke it and make another."};
    showErrors(error instanceof Problem ? error.errors : [lost]);
    form.querySelector("[aria-invalid]")?.focus();
  }
  button.disabled = false;
}

function showErrors(errors) {
  say(part("refused"), showAtFields(form, errors).join(" "));
}

function askAndRevoke(button) {
  const {revoke: id, name} = button.dataset;
  part("whose").textContent = `${name} (hf_${id}…)`;
  confirm.returnValue = "";
  confirm.addEventListener("close", () => { if (confirm.returnValue === "revoke") revoke(id, name); }, {once: true});
  confirm.showModal();
}

async function revoke(id, name) {
  say(part("refused"), "");
  try {
    await post(`/v1/keys/${id}/revoke`, "");
    say(part("done"), `${name} (hf_${id}…) is revoked.`);
    await refresh();
  } catch (error) {
    say(part("refused"), error instanceof Problem ? error.message : "The service does not answer; try again.");
  }
}

async function refresh() {
  const address = new URL(location.href);
  address.searchParams.set("part", "list");
  const answer = await fetch(address, {headers: {Accept: "text/html"}, cache: "no-store"}).catch(() => null);
  if (answer?.ok && !answer.redirected) list.innerHTML = await answer.text(); // the same template as on the page
}

form?.addEventListener("submit", event => {
  event.preventDefault();
  make();
});
list?.addEventListener("click", event => {
  const button = event.target.closest("[data-revoke]");
  if (button) askAndRevoke(button);
});
