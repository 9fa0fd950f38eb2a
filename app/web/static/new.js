// The form of a new job: shows the plan while somebody types, errors at their fields, and submits once.

import {collect, fill, showAtFields} from "./fields.js";
import {sentences} from "./plan.js";
import {Problem, post, say} from "./request.js";

const PAUSE_MS = 400;
const form = document.getElementById("new"), part = id => document.getElementById(id);
const curl = part("curl");
let timer = null, asking = null, key = "", keyed = "";

function changed() {
  const request = collect(form), text = JSON.stringify(request, null, 2);
  part("request").textContent = text;
  curl.textContent = curl.dataset.template.replace("\n{}\n", () => `\n${text}\n`);
  clearTimeout(timer);
  timer = setTimeout(() => askForPlan(request), PAUSE_MS);
}

async function askForPlan(request) {
  asking?.abort();
  if (!request.model?.repo || !request.target) return;
  const mine = asking = new AbortController();
  try {
    const plan = await post("/v1/plans", request, {signal: mine.signal});
    showErrors([]);
    list(part("plan"), sentences(plan, request));
  } catch (error) {
    if (mine.signal.aborted) return;
    list(part("plan"), ["No plan for this request."]);
    showErrors(error instanceof Problem ? error.errors : [{detail: "The service does not answer."}]);
  }
}

function list(place, texts) {
  place.replaceChildren(...texts.map(text => Object.assign(document.createElement("li"), {textContent: text})));
}

// Each at its field; what belongs to none stands beside the plan.
function showErrors(errors) {
  const left = showAtFields(form, errors);
  list(part("problems"), left);
  part("problems").hidden = !left.length;
  return form.querySelector("[aria-invalid]");
}

async function submit() {
  const request = collect(form), text = JSON.stringify(request);
  // One key for one request: sending it again after a lost answer makes no second job.
  if (text !== keyed) [key, keyed] = [randomKey(), text];
  part("submit").disabled = true;
  say(part("sending"), "Checking …");
  try {
    const job = await post("/v1/jobs", text, {headers: {"Idempotency-Key": key}});
    location.assign(`/jobs/${job.id}`);
    return;
  } catch (error) {
    clearTimeout(timer);
    asking?.abort();
    showErrors(error instanceof Problem ? error.errors : [{detail: "The service does not answer; send it again, it makes one job at most."}])?.focus();
  }
  part("submit").disabled = false;
  say(part("sending"), "");
}

function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, "0")).join("");
}

function chooseTarget(pointer) {
  for (const radio of form.elements.how) {
    radio.checked = radio.value === pointer;
    form.querySelector(`[name="${CSS.escape(radio.value)}"]`).disabled = radio.value !== pointer;
  }
}

const start = JSON.parse(part("start").textContent);
fill(form, start);
if (start.target) chooseTarget(`/target/${Object.keys(start.target)[0]}`);
if (start.target) part("more").open = true;
for (const radio of form.elements.how) radio.addEventListener("change", () => chooseTarget(radio.value));
form.addEventListener("input", changed);
form.addEventListener("change", changed);
form.addEventListener("submit", event => {
  event.preventDefault();
  submit();
});
changed();
