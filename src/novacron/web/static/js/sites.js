// This cluster's nodes and its peers, each in a small box.

import { element, write } from "./element.js";
import { size } from "./figures.js";

export function box(site) {
  const title = element("strong"), state = element("span", { class: "quiet" });
  return {
    node: element("li", { "data-id": site.id }, title, state),
    update(now) {
      write(title, now.name);
      const room = now.capabilities ? `${size(now.capabilities.memory_free_bytes)} of RAM free` : "";
      write(state, [now.capabilities ? "node" : "peer", now.state, now.drain, room].filter(Boolean).join(" · "));
      state.className = now.state === "unreachable" ? "problem" : "quiet";
    },
  };
}
