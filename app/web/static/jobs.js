// The list of jobs, kept up to date, and its filters.

import {keepFresh} from "./refresh.js";

keepFresh(document.getElementById("list"), "job");

// A choice is a filter at once; text waits for the button or Enter.
for (const choice of document.querySelectorAll("#filters select"))
  choice.addEventListener("change", () => choice.form.requestSubmit());
