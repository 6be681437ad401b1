// The question before something is done. Gives the chosen target (or true), or null.

const part = (id) => document.getElementById(id);

export function confirm({ title, text, yes, targets }) {
  const dialog = part("confirm"), select = part("confirm-select");
  part("confirm-title").textContent = title;
  part("confirm-text").textContent = text;
  part("confirm-yes").textContent = yes;
  part("confirm-target").hidden = !targets;
  select.replaceChildren(...(targets ?? []).map((name) => new Option(name)));
  part("confirm-yes").disabled = targets?.length === 0;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? (targets ? select.value : true) : null), { once: true }),
  );
}
