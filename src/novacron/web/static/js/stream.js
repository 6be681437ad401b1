// Lists everything, then follows the changes. When the stream breaks, everything is listed again: simple, and always right.

import { ask, list, Problem } from "./api.js";
import { KINDS } from "./state.js";

const AGAIN_MS = 1500;

export async function follow(state, { changed, connected, lost }) {
  for (;;) {
    try {
      const version = await look(state);
      changed();
      await read(state, version, changed, connected);
    } catch (problem) {
      if (problem.status === 401) return location.assign("/sign-in");
      lost(problem);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}

async function look(state) {
  state.cluster = await ask("/cluster");
  let version = Infinity;
  for (const [kind, path] of Object.entries(KINDS)) {
    const page = await list(path);
    state.replace(kind, page.items);
    version = Math.min(version, page.version); // what changed between two lists comes again, and says nothing new
  }
  return version;
}

// One connection; ends only by its failure.
function read(state, after, changed, connected) {
  return new Promise((_, reject) => {
    const source = new EventSource(`/api/v1/events?after=${after}&kinds=${Object.keys(KINDS).join(",")}`);
    source.onopen = connected;
    source.addEventListener("change", (message) => {
      const change = JSON.parse(message.data);
      if (state.apply(change)) changed(change);
    });
    source.onerror = () => {
      source.close();
      reject(new Problem({}));
    };
  });
}
