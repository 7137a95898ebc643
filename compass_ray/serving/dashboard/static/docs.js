// The API reference: every operation of openapi.json, with its fields, its responses and a command. Loads nothing else.

import { make, setText, Table } from "./dom.js";
import { t } from "./messages.js";

const at = (id) => document.getElementById(id);
const METHODS = ["get", "post", "put", "patch", "delete"];

const resolve = (api, part) => {
  const name = part?.$ref?.split("/").at(-1);
  return name ? { name, ...api.components.schemas[name] } : part ?? {};
};

// The type of a schema as words, such as "array of Message" or "string or null".
export function typeOf(api, schema = {}) {
  const or = t("or");
  if (schema.$ref) return resolve(api, schema).name;
  for (const several of [schema.anyOf, schema.oneOf, schema.allOf]) if (several) return [...new Set(several.map((each) => typeOf(api, each)))].join(` ${or} `);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return t("array of {type}", { type: typeOf(api, schema.items) });
  return schema.type ?? t("any");
}

function fields(box, api, schema, caption) {
  const found = resolve(api, schema);
  if (!found.properties) return;
  const table = new Table(box, {
    caption, columns: [{ head: t("Field") }, { head: t("Type") }, { head: t("Default") }, { head: t("Description"), kind: "long" }], empty: "–",
  });
  table.show(Object.entries(found.properties).map(([name, each]) => ({
    key: name,
    cells: [
      name, typeOf(api, each), found.required?.includes(name) ? t("required") : each.default === undefined ? "–" : JSON.stringify(each.default),
      each.description ?? resolve(api, each).description ?? "–",
    ],
  })));
}

function command(path, method, body) {
  const url = new URL(path.slice(1), document.baseURI.replace(/docs\/?(\?.*)?$/, ""));
  const data = body ? ` -H 'content-type: application/json' -d '{"model": "auto", "messages": [{"role": "user", "content": "…"}]}'` : "";
  return `curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${url}${data}`;
}

function operation(api, path, method, found) {
  const details = make("details", { class: "operation", dir: "ltr", lang: "en" },
    make("summary", {}, make("span", { class: "method" }, method.toUpperCase()), make("code", {}, path), ` ${found.summary ?? ""}`));
  const body = found.requestBody?.content?.["application/json"]?.schema;
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    if (found.description) details.append(make("p", {}, found.description));
    details.append(make("pre", { tabindex: "0" }, make("code", {}, command(path, method, path.endsWith("chat/completions") && body))));
    if (body) fields(details, api, body, t("Fields of the request: {name}", { name: typeOf(api, body) }));
    const table = new Table(details, { caption: t("Responses"), columns: [{ head: t("Status") }, { head: t("Content") }, { head: t("Description"), kind: "long" }], empty: "–" });
    table.show(Object.entries(found.responses ?? {}).map(([status, each]) => ({
      key: status, cells: [status, Object.entries(each.content ?? {}).map(([type, { schema }]) => `${type}: ${typeOf(api, schema)}`).join(", ") || "–", each.description ?? "–"],
    })));
  });
  return details;
}

try {
  const response = await fetch("openapi.json");
  if (!response.ok) throw new Error(t("the endpoint returned {status}", { status: response.status }));
  const api = await response.json();
  for (const [path, operations] of Object.entries(api.paths))
    for (const method of METHODS) if (operations[method]) at("operations").append(operation(api, path, method, operations[method]));
  const heading = make("h2", {}, t("Types"));
  at("operations").append(heading, ...Object.entries(api.components?.schemas ?? {}).filter(([, each]) => each.properties).map(([name, each]) => {
    const details = make("details", { class: "operation", dir: "ltr", lang: "en" }, make("summary", {}, make("code", {}, name)));
    if (each.description) details.append(make("p", {}, each.description));
    fields(details, api, each, t("Fields of {name}", { name }));
    return details;
  }));
} catch (error) {
  at("failure").hidden = false;
  setText(at("failure"), t("Cannot read openapi.json: {reason}.", { reason: error.message }));
}
