// Elements in one expression: element("li", { class: "past" }, "text", child).

const SVG = new Set(["svg", "rect", "title"]);

export function element(tag, attributes = {}, ...children) {
  const made = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Writes only what differs: a screen reader and a selection stay where they are.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Children in the order of items; each item keeps its own element.
export function arrange(parent, items, known, make) {
  const wanted = new Set(items.map((item) => item.id));
  for (const [id, part] of known) {
    if (wanted.has(id)) continue;
    part.node.remove();
    known.delete(id);
  }
  items.forEach((item, at) => {
    let part = known.get(item.id);
    if (!part) known.set(item.id, (part = make(item)));
    if (parent.children[at] !== part.node) parent.insertBefore(part.node, parent.children[at] ?? null);
    part.update(item);
  });
}
