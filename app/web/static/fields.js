// The form's fields and the request as JSON, each into the other. Fields are named by JSON pointers.

import {say} from "./request.js";

const PARSERS = {
  text: text => text,
  choice: text => text,
  flag: text => text === "true",
  number: text => Number.isFinite(Number(text)) ? Number(text) : text, // what is no number, the service refuses by name
  integer: text => Number.isFinite(Number(text)) ? Number(text) : text,
  texts: text => parts(text),
  integers: text => parts(text).map(part => Number.isFinite(Number(part)) ? Number(part) : part),
  labels: text => Object.fromEntries(parts(text).map(part => part.match(/^([^=]*)=?(.*)$/s).slice(1).map(side => side.trim()))),
  json: text => { try { return JSON.parse(text); } catch { return text; } },
};

const WRITERS = {
  texts: value => value.join(", "),
  integers: value => value.join(", "),
  labels: value => Object.entries(value).map(([key, each]) => `${key}=${each}`).join(", "),
  json: value => JSON.stringify(value),
};

const parts = text => text.split(",").map(part => part.trim()).filter(Boolean);

export function collect(form) {
  const request = {};
  for (const field of form.querySelectorAll("[data-kind]")) {
    if (field.dataset.kind === "ticks") {
      const ticked = [...field.querySelectorAll("input:checked")].map(input => input.value);
      if (ticked.length) put(request, field.dataset.pointer, ticked);
    } else if (!field.disabled && field.value.trim()) {
      put(request, field.name, PARSERS[field.dataset.kind](field.value.trim()));
    }
  }
  return request;
}

export function fill(form, request) {
  for (const field of form.querySelectorAll("[data-kind]")) {
    const value = at(request, field.name || field.dataset.pointer);
    if (value === undefined || value === null) continue;
    if (field.dataset.kind === "ticks") {
      for (const input of field.querySelectorAll("input")) input.checked = value.includes(input.value);
      continue;
    }
    const written = (WRITERS[field.dataset.kind] ?? String)(value);
    if (field.tagName === "SELECT" && ![...field.options].some(option => option.value === written)) {
      if (field.options[0].text === written) continue; // it is what the empty choice stands for
      field.add(new Option(written, written));
    }
    field.value = written;
  }
}

// The field that a pointer leads to, or the nearest one above it.
export function fieldAt(form, pointer) {
  for (let path = pointer; path; path = path.slice(0, path.lastIndexOf("/"))) {
    const found = form.querySelector(`[name="${CSS.escape(path)}"], [data-pointer="${CSS.escape(path)}"]`);
    if (found && !found.disabled) return found;
  }
  return null;
}

// Each error at its field, in the place that the field's id names; returns the sentences that belong to none.
export function showAtFields(form, errors) {
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const place of form.querySelectorAll(".error[id$='-error']")) say(place, "");
  const left = [];
  for (const {detail, pointer} of errors) {
    const field = pointer ? fieldAt(form, pointer) : null, place = field && document.getElementById(`${field.id}-error`);
    if (!place) {
      left.push(detail);
      continue;
    }
    field.setAttribute("aria-invalid", "true");
    say(place, detail);
    field.closest("details")?.setAttribute("open", "");
  }
  return left;
}

function put(request, pointer, value) {
  const path = pointer.slice(1).split("/"), last = path.pop();
  let place = request;
  for (const name of path) place = place[name] ??= {};
  place[last] = value;
}

function at(request, pointer) {
  return pointer.slice(1).split("/").reduce((place, name) => place?.[name], request);
}
