// Uploads a data set with the share that has been sent, which `fetch` does not tell.

import {say} from "./request.js";

const form = document.getElementById("upload"), sent = document.getElementById("sent");

form?.addEventListener("submit", event => {
  event.preventDefault();
  const body = new FormData(), name = form.elements.name.value.trim();
  if (name) body.append("name", name);
  body.append("file", form.elements.file.files[0]);
  const request = new XMLHttpRequest(), button = form.querySelector("button");
  button.disabled = true;
  sent.hidden = false;
  say(document.getElementById("refused"), "");
  request.upload.onprogress = ({loaded, total}) => { sent.value = 100 * loaded / total; };
  request.onloadend = () => {
    button.disabled = false;
    sent.hidden = true;
    if (request.status === 200 || request.status === 201) {
      say(document.getElementById("done"), `Stored as ${JSON.parse(request.responseText).id}.`);
      setTimeout(() => location.assign("/datasets"), 700);
    } else say(document.getElementById("refused"), refusal(request));
  };
  request.open("POST", "/v1/datasets");
  request.setRequestHeader("Accept", "application/json");
  request.send(body);
});

function refusal(request) {
  try {
    return JSON.parse(request.responseText).detail;
  } catch {
    return "The service does not answer; try again.";
  }
}
