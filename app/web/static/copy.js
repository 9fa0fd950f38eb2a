// Buttons that copy the text of the element that they name.

for (const button of document.querySelectorAll("[data-copy]")) {
  const name = button.textContent;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).textContent;
    button.textContent = await copied(text) ? "Copied" : "Select it and copy";
    setTimeout(() => { button.textContent = name; }, 2000);
  });
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text); // only there over https and on this machine
    return true;
  } catch {
    const area = Object.assign(document.createElement("textarea"), {value: text, readOnly: true, className: "unseen"});
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
