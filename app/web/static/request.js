// Asking this service's API, with its problem documents as errors.

export class Problem extends Error {
  constructor(document, status) {
    super(document.detail ?? `The service answered ${status}.`);
    this.code = document.code;
    this.errors = document.errors ?? [document];
  }
}

export async function ask(path, options = {}) {
  const answer = await fetch(path, {...options, headers: {Accept: "application/json", ...options.headers}});
  if (answer.ok) return answer.json();
  const document = await answer.json().catch(() => ({}));
  if (answer.status === 401) document.detail = "The login has ended. Open this page again to log in.";
  throw new Problem(document, answer.status);
}

export function post(path, body, options = {}) {
  const headers = {"Content-Type": "application/json", ...options.headers};
  return ask(path, {...options, method: "POST", body: typeof body === "string" ? body : JSON.stringify(body), headers});
}

export function say(element, text) {
  element.textContent = text;
  element.hidden = !text;
}
