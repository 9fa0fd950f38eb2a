// The pages of webhooks: one that was disabled is enabled, and a message is sent again.

import {keepFresh} from "./refresh.js";
import {Problem, post, say} from "./request.js";

const part = id => document.getElementById(id);
const list = part("list");
const look = list && keepFresh(list, "delivery");

function refuse(error) {
  say(part("refused"), error instanceof Problem ? error.message : "The service does not answer; try again.");
}

for (const button of document.querySelectorAll("[data-enable]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await post(`/v1/webhooks/${button.dataset.enable}/enable`, "");
      location.reload();
    } catch (error) {
      refuse(error);
      button.disabled = false;
    }
  });
}

async function sendAgain(button) {
  const id = button.dataset.redeliver, webhook = location.pathname.split("/").pop();
  say(part("refused"), "");
  say(part("done"), "");
  button.setAttribute("aria-disabled", "true"); // a disabled one would lose the focus
  try {
    await post(`/v1/webhooks/${webhook}/deliveries/${id}/redeliver`, "");
    say(part("done"), `${id} is sent again.`);
    look(); // if that fails, the message has been sent all the same
  } catch (error) {
    refuse(error);
  }
  button.removeAttribute("aria-disabled");
}

list?.addEventListener("click", event => {
  const button = event.target.closest("[data-redeliver]");
  if (button && !button.hasAttribute("aria-disabled")) sendAgain(button);
});
