// Speaks with this controller's API. Errors are its problem documents.

export class Problem extends Error {
  constructor({ cause, code, next_command: next, status }) {
    super(cause ?? "the controller cannot be reached");
    this.code = code ?? "unreachable";
    this.next = next ?? "";
    this.status = status ?? 0;
  }
}

export async function ask(path, { method = "GET", body } = {}) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  if (method !== "GET") options.headers["Idempotency-Key"] = crypto.randomUUID?.() ?? String(Math.random());
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, options);
  } catch {
    throw new Problem({});
  }
  const document = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem({ status: answer.status, ...document });
  return document;
}

// Every item of a list, with the version that the list stands for.
export async function list(path) {
  const items = [];
  let version, cursor = "";
  do {
    const page = await ask(`${path}?limit=500&cursor=${encodeURIComponent(cursor)}`);
    items.push(...page.items);
    version ??= page.resource_version;
    cursor = page.cursor;
  } while (cursor);
  return { items, version };
}
