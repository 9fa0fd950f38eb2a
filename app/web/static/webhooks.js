// The page of webhooks: enables one that was disabled.

import {Problem, post, say} from "./request.js";

for (const button of document.querySelectorAll("[data-enable]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await post(`/v1/webhooks/${button.dataset.enable}/enable`, "");
      location.reload();
    } catch (error) {
      say(document.getElementById("refused"), error instanceof Problem ? error.message : "The service does not answer; try again.");
      button.disabled = false;
    }
  });
}
