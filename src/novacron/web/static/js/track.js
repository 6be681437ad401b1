// The phases of a hand-over: where it is, who owns the VM, and where there is no way back.

import { element, write } from "./element.js";

export const PHASES = ["prepare", "copy", "switchover", "ready", "committed", "following", "verify", "window", "done"];
const NO_RETURN = PHASES.indexOf("committed");

export function owner(migration) {
  const handed = PHASES.indexOf(migration.phase) >= NO_RETURN && !["failed", "cancelled"].includes(migration.outcome);
  return handed ? migration.target_cluster : migration.source_cluster;
}

export function track() {
  const steps = PHASES.map((phase) => element("li", { class: "" }, phase));
  steps[NO_RETURN].title = "from here on the destination owns the VM";
  const whose = element("li", { class: "quiet" });
  const node = element("ol", { class: "track", "aria-label": "phases" }, ...steps, whose);
  return {
    node,
    update(migration) {
      const at = PHASES.indexOf(migration.phase);
      steps.forEach((step, index) => {
        const name = [index < at ? "past" : index === at ? "now" : "", index === NO_RETURN ? "no-return" : ""].join(" ").trim();
        if (step.className !== name) step.className = name;
        if (index === at) step.setAttribute("aria-current", "step");
        else step.removeAttribute("aria-current");
      });
      write(whose, `owner: ${owner(migration)}`);
    },
  };
}
