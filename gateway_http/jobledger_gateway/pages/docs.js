// Shows /v1/openapi.json and lets people try it. Every text goes in as text, never as markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const MAX_DEPTH = 6;
let api;

/** An element with properties and children; strings become text. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A text with what stands between backticks as code; still text, never markup. */
function prose(text) {
  return text.split(/`([^`]+)`/).map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

function resolve(schema) {
  const name = schema?.$ref?.split("/").pop();
  return name ? { ...api.components[schema.$ref.split("/")[2]][name], name } : schema ?? {};
}

function typeOf(schema) {
  if (schema.$ref) return typeOf(resolve(schema));
  // Other spellings of what stands first have no type.
  if (schema.anyOf) return schema.anyOf.filter((other) => other.type || other.$ref).map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const types = [schema.type ?? "any"].flat().join(" or ");
  if (schema.items) return `list of ${typeOf(schema.items)}`;
  return schema.format ? `${types} (${schema.format})` : types;
}

function limits(schema) {
  const names = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "pattern"];
  return names.filter((name) => name in schema).map((name) => `${name} ${schema[name]}`).join(", ");
}

/** The object within a schema, through references, lists and alternatives. */
function innerObject(schema) {
  const found = resolve(schema);
  if (found.properties) return found;
  if (found.items) return innerObject(found.items);
  return (found.anyOf ?? []).map(innerObject).find((inner) => inner);
}

function schemaTree(schema, depth = 0, above = []) {
  const found = innerObject(schema);
  if (!found || depth > MAX_DEPTH || above.includes(found.name)) return null;
  const list = make("ul");
  for (const [name, field] of Object.entries(found.properties)) {
    const line = make("li", {}, make("code", {}, name), " ", make("span", { className: "type" }, typeOf(field)));
    const about = [field.description, limits(field)].filter(Boolean).join(" ");
    if (about) line.append(" ", ...prose(about));
    const inner = schemaTree(field, depth + 1, found.name ? [...above, found.name] : above);
    if (inner) line.append(make("details", {}, make("summary", {}, "fields"), inner));
    list.append(line);
  }
  return list;
}

/** Whether the values of a parameter each take a name of their own in the query. */
function isList(parameter) {
  return parameter.in === "query" && parameter.explode === true && resolve(parameter.schema).type === "array";
}

/** A value as part of a path: one over several segments keeps its slashes. */
function inPath(parameter, value) {
  return parameter["x-multi-segment"] ? value.split("/").map(encodeURIComponent).join("/") : encodeURIComponent(value);
}

function fieldFor(parameter, id) {
  const schema = resolve(parameter.schema);
  const choices = schema.enum ?? schema.anyOf?.[0].enum;
  const input = choices
    ? make("select", { id }, make("option", { value: "" }, ""), ...choices.map((value) => make("option", { value }, value)))
    : make(isList(parameter) ? "textarea" : "input", { id, required: Boolean(parameter.required), spellcheck: false, autocomplete: "off" });
  input.setAttribute("aria-describedby", `${id}-hint`);
  const hint = [isList(parameter) && "one a line", parameter["x-multi-segment"] && "segments with slashes between them", typeOf(parameter.schema), parameter.description?.split("\n")[0], limits(schema)].filter(Boolean).join(" · ");
  const name = parameter.required ? `${parameter.name} *` : parameter.name;
  const row = make("div", { className: "field" }, make("label", { htmlFor: id }, make("code", {}, name)), input);
  row.append(make("span", { className: "hint", id: `${id}-hint` }, hint));
  return { row, parameter, input };
}

function takesJson(operation) {
  return Boolean(operation.requestBody?.content["application/json"]);
}

/** What the form says: address, headers and body of the request. */
function requestOf(operation, path, fields, body) {
  let target = path;
  const query = new URLSearchParams();
  const headers = {};
  for (const { parameter, input } of fields) {
    const value = input.value;
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, inPath(parameter, value));
    else if (value === "") continue;
    else if (isList(parameter)) value.split("\n").filter(Boolean).forEach((line) => query.append(parameter.name, line));
    else if (parameter.in === "query") query.append(parameter.name, value);
    else headers[parameter.name] = value;
  }
  const token = document.getElementById("token").value.trim();
  if (token && !operation.security) headers.Authorization = `Bearer ${token}`;
  const sent = takesJson(operation) ? body?.value.trim() : body?.value;
  if (sent) headers["Content-Type"] = takesJson(operation) ? "application/json" : "text/plain; charset=utf-8";
  const text = query.toString();
  return { url: target + (text ? `?${text}` : ""), headers, body: sent || undefined };
}

function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** The request as a line for a shell. The token is not shown: it is in a variable there. */
function curlOf(method, request) {
  const headers = Object.entries(request.headers).map(([name, value]) =>
    name === "Authorization" ? '-H "Authorization: Bearer $TOKEN"' : `-H ${quote(`${name}: ${value}`)}`);
  const body = request.body ? [`--data-raw ${quote(request.body)}`] : [];
  return ["curl", "-X", method.toUpperCase(), ...headers, ...body, quote(location.origin + request.url)].join(" ");
}

async function send(method, request, output, signal) {
  const began = performance.now();
  const response = await fetch(request.url, { method: method.toUpperCase(), headers: request.headers, body: request.body, signal });
  const took = Math.round(performance.now() - began);
  output.textContent = `${response.status} ${response.statusText} · ${took} ms · ${response.headers.get("content-type") ?? ""}\n\n`;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text += part.value;
    output.append(part.value);
  }
  if (response.headers.get("content-type")?.startsWith("application/json")) {
    output.textContent = `${output.textContent.split("\n")[0]}\n\n${JSON.stringify(JSON.parse(text), null, 2)}`;
  }
}

function tryForm(method, path, operation) {
  const id = operation.operationId ?? path;
  const fields = (operation.parameters ?? []).map((parameter) => fieldFor(parameter, `${id}.${parameter.name}`));
  const body = operation.requestBody && make("textarea", { id: `${id}.body`, value: takesJson(operation) ? "{}" : "", spellcheck: false });
  const form = make("form", {}, ...fields.map((field) => field.row));
  if (body) form.append(make("h3", {}, make("label", { htmlFor: body.id }, "Body")), body);
  const stop = make("button", { type: "button", className: "plain", hidden: true }, "Stop");
  const output = make("pre", { hidden: true, tabIndex: 0 });
  output.setAttribute("aria-live", "polite");
  const command = make("pre", { hidden: true });
  form.append(make("div", { className: "actions" }, make("button", {}, "Send"), stop), command, output);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const request = requestOf(operation, path, fields, body);
    const abort = new AbortController();
    stop.onclick = () => abort.abort();
    command.textContent = curlOf(method, request);
    command.hidden = output.hidden = stop.hidden = false;
    output.textContent = "…";
    try {
      await send(method, request, output, abort.signal);
    } catch (error) {
      output.append(abort.signal.aborted ? "\n(stopped)" : `\n${error}`);
    }
    stop.hidden = true;
  });
  return form;
}

function responsesOf(operation) {
  const list = make("div", { className: "schema" });
  for (const [status, given] of Object.entries(operation.responses)) {
    const response = resolve(given);
    for (const [media, { schema }] of Object.entries(response.content ?? {})) {
      const tree = schema && schemaTree(schema);
      const title = `${status} · ${media} · ${response.description.split("\n")[0]}`;
      list.append(tree ? make("details", {}, make("summary", {}, title), tree) : make("p", {}, title));
    }
  }
  return list;
}

function inside(method, path, operation) {
  const box = make("div", { className: "inside" });
  if (operation.description) box.append(make("p", {}, ...prose(operation.description)));
  const schema = operation.requestBody?.content["application/json"]?.schema;
  const tree = schema && schemaTree(schema);
  if (tree) box.append(make("h3", {}, "Body"), make("div", { className: "schema" }, tree));
  box.append(make("h3", {}, "Answers"), responsesOf(operation), make("h3", {}, "Try it"), tryForm(method, path, operation));
  return box;
}

function operationBox(method, path, operation) {
  const id = `${method}-${path}`;
  const summary = make("summary", {}, make("span", { className: `verb ${method}` }, method.toUpperCase()), make("span", { className: "path" }, path));
  summary.append(make("span", { className: "summary" }, ...prose(operation.summary ?? "")));
  const box = make("details", { className: "operation", id }, summary);
  // Filled when it is first opened: most are never.
  box.addEventListener("toggle", () => box.childElementCount === 1 && box.append(inside(method, path, operation)));
  const link = make("a", { href: `#${encodeURIComponent(id)}` }, make("span", { className: `verb ${method}` }, method.toUpperCase()), ` ${path}`);
  link.addEventListener("click", () => { box.open = true; });
  return { box, link, text: `${method} ${path} ${operation.summary ?? ""}`.toLowerCase() };
}

function show(document_) {
  api = document_;
  document.title = document.getElementById("title").textContent = `${api.info.title} API`;
  document.getElementById("version").textContent = api.info.version;
  document.getElementById("intro").append(...prose(api.info.description));
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => name in item)) {
      const tag = item[method].tags[0];
      groups.set(tag, [...(groups.get(tag) ?? []), operationBox(method, path, item[method])]);
    }
  }
  const all = [];
  for (const [tag, entries] of groups) {
    document.getElementById("index").append(make("strong", {}, tag), ...entries.map((entry) => entry.link));
    const about = api.tags.find((known) => known.name === tag)?.description ?? "";
    document.getElementById("operations").append(make("h2", {}, tag), make("p", { className: "summary" }, ...prose(about)), ...entries.map((entry) => entry.box));
    all.push(...entries);
  }
  document.getElementById("filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase();
    for (const { box, link, text } of all) box.hidden = link.hidden = !text.includes(words);
  });
}

document.getElementById("access").addEventListener("submit", (event) => event.preventDefault());
fetch("/v1/openapi.json")
  .then((response) => response.json())
  .then(show)
  .catch((error) => {
    const problem = document.getElementById("problem");
    problem.textContent = `The document can't be read: ${error}`;
    problem.hidden = false;
  });
