// Does what it is told on its standard input with a record, and says what it then sees. Bytes are base64.
import { readFileSync } from "node:fs";
import * as Y from "yjs";
import { at, edit, openRecord, openText, write, writes } from "./record.mjs";

const asked = JSON.parse(readFileSync(0, "utf8"));
const bytes = (text) => Buffer.from(text, "base64");
const text = (raw) => Buffer.from(raw).toString("base64");

const doc = openRecord(...asked.updates.map(bytes));
const updates = [];
for (const { me, path, value, append, bytes: raw, at_ms } of asked.edits ?? []) {
  const made =
    append === undefined
      ? write(doc, me, path, raw === undefined ? value : bytes(raw), at_ms)
      : edit(doc, me, path, (typed) => typed.insert(typed.length, append), at_ms);
  updates.push(text(made));
}

const seen = writes(doc).map(({ author, raw, path, value, time, role }) => ({
  author,
  raw: text(raw),
  path,
  value: value instanceof Uint8Array ? { bytes: text(value) } : value,
  time,
  role,
}));
const texts = (asked.texts ?? []).map((path) => openText(at(doc, path).map((each) => each.value)).toString());
console.log(JSON.stringify({ seen, texts, updates, state: text(Y.encodeStateAsUpdate(doc)) }));
