// One VM: a row with its action.

import { element, write } from "./element.js";
import { size } from "./figures.js";

export function row(first, { nodeName, migrate }) {
  const cells = Array.from({ length: 4 }, () => element("td"));
  let now = first;
  const button = element("button", { type: "button", "aria-label": `Migrate ${first.name}`, onclick: () => migrate(now) }, "Migrate…");
  return {
    node: element("tr", { "data-id": first.id }, ...cells, element("td", {}, button)),
    update(vm) {
      now = vm;
      [vm.name, vm.state, nodeName(vm.node_id), size(vm.spec.memory_bytes)].forEach((text, at) => write(cells[at], text));
      button.disabled = !["running", "paused"].includes(vm.state) || Boolean(vm.migration_id);
    },
  };
}
