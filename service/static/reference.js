// The reference: what `openapi.json` says, to be read.

import { address, sendForJson } from "./api.js";
import { announce, copyButton, element, wireSkipLink } from "./dom.js";
import { failureNotice } from "./problems.js";

const METHODS = ["get", "post", "put", "delete"];
const PROBLEMS = 400; // the statuses from here on
const DEEPEST = 6; // of an example: a schema may hold itself
const main = document.getElementById("reference");

async function show() {
  try {
    const api = await sendForJson("openapi.json");
    const operations = operationsOf(api);
    main.replaceChildren(index(operations), ...operations.map((operation) => section(operation, api)));
    announce(`${operations.length} routes`);
    document.getElementById(location.hash.slice(1))?.scrollIntoView();
  } catch (error) {
    main.replaceChildren(failureNotice(error, show));
  }
}

function operationsOf(api) {
  return Object.entries(api.paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => methods[method]).map((method) => ({
      ...methods[method], path, method: method.toUpperCase(), id: `${method}${path.replace(/[^a-z0-9]+/gi, "-")}`,
    })));
}

function index(operations) {
  return element("nav", { class: "index", "aria-label": "Routes" },
    element("ul", {}, ...operations.map(({ id, method, path }) => element("li", {},
      element("a", { href: `${location.pathname}#${id}` }, methodName(method), " ", element("code", {}, path))))));
}

function methodName(method) {
  return element("span", { class: `method ${method.toLowerCase()}` }, method);
}

function section(operation, api) {
  const { id, method, path, description, summary } = operation;
  return element("section", { class: "operation", "aria-labelledby": id },
    element("h2", { id, tabindex: "-1" }, methodName(method), " ", element("code", {}, path)),
    ...paragraphs(description ?? summary ?? ""),
    keyLine(operation),
    curlExample(operation, api),
    table("Parameters", parameterRows(operation, api)),
    ...bodyTables(operation, api),
    table("Answers", answerRows(operation, (status) => status < PROBLEMS)),
    element("details", {}, element("summary", {}, "What can go wrong"),
      table("Problems", answerRows(operation, (status) => status >= PROBLEMS))),
  );
}

function paragraphs(text) {
  return text.split(/\n{2,}/).filter(Boolean).map((paragraph) => element("p", {}, ...withCode(paragraph)));
}

/** Say which key a route takes. */
function keyLine({ security = [] }) {
  const scope = security.flatMap(({ key = [] }) => key)[0];
  if (!scope) return null;
  const words = isOpen(security) ? "A key is not needed here; one that is sent must be for " : "Needs a key for ";
  return element("p", { class: "aside" }, words, element("code", {}, scope), ".");
}

function isOpen(security = []) {
  return security.length === 0 || security.some((choice) => Object.keys(choice).length === 0);
}

/** Return a text whose parts in backticks are set as code. */
function withCode(text) {
  return text.split(/`([^`]*)`/).map((part, number) => (number % 2 === 1 ? element("code", {}, part) : part));
}

function table(title, rows) {
  if (rows.length === 0) return null;
  return element("div", { class: "table" }, element("table", {},
    element("caption", {}, title),
    element("tbody", {}, ...rows.map(([name, kind, meaning]) => element("tr", {},
      element("th", { scope: "row" }, element("code", {}, name)),
      element("td", { class: "aside" }, kind),
      element("td", {}, ...withCode(meaning)))))));
}

function parameterRows({ parameters = [] }, api) {
  return parameters.map(({ name, in: where, required, schema, description }) => [
    name, `${where}, ${kindOf(schema, api)}${required ? ", needed" : ""}`, description ?? schema.description ?? "",
  ]);
}

function bodyTables({ requestBody }, api) {
  return Object.entries(requestBody?.content ?? {}).map(([type, { schema }]) => {
    const { properties = {}, required = [], description = "" } = resolve(schema, api);
    const rows = Object.entries(properties).map(([name, property]) => [
      name, `${kindOf(property, api)}${required.includes(name) ? ", needed" : ""}`, property.description ?? "",
    ]);
    return rows.length > 0 ? table(`Body, ${type}`, rows) : table("Body", [[type, kindOf(schema, api), description]]);
  });
}

function answerRows({ responses }, isWanted) {
  return Object.entries(responses).filter(([status]) => isWanted(Number(status)))
    .map(([status, { description, content = {} }]) => [status, Object.keys(content).join(", "), description]);
}

function kindOf(schema, api) {
  if (!schema) return "";
  const { type, anyOf, items, enum: values, title } = resolve(schema, api);
  if (values) return values.map((value) => JSON.stringify(value)).join(" or ");
  if (anyOf) return [...new Set(anyOf.map((one) => kindOf(one, api)))].join(" or ");
  if (type === "array") return `list of ${kindOf(items, api)}`;
  return type ?? title ?? "anything";
}

function resolve(schema, api) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split("/").reduce((part, name) => part[name], api);
}

function curlExample(operation, api) {
  const command = curl(operation, api);
  const shown = element("pre", { tabindex: "0" }, element("code", {}, command));
  return element("div", { class: "curl" }, shown, copyButton("Copy", command));
}

/** Write the command that sends an example of a request. */
function curl({ method, path, parameters = [], requestBody, security }, api) {
  const url = address(path.slice(1).replace(/\{(\w+)\}/g, (_, name) => name.toUpperCase()));
  for (const { in: where, required, name, schema } of parameters) {
    if (where === "query" && required) url.searchParams.set(name, exampleOf(schema, api));
  }
  return [
    "curl",
    method === "GET" ? "" : `-X ${method}`,
    isOpen(security) ? "" : "-H 'Authorization: Bearer KEY'",
    ...bodyArguments(requestBody, api),
    quoted(url.href),
  ].filter(Boolean).join(" ");
}

function bodyArguments(requestBody, api) {
  const content = requestBody?.content ?? {};
  if (content["application/json"]) {
    const { schema, example } = content["application/json"];
    return ["-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(example ?? exampleOf(schema, api)))}`];
  }
  if (content["multipart/form-data"]) return ["-F file=@FILE"];
  return Object.keys(content).length > 0 ? ["--data-binary @FILE"] : [];
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Make a value of a schema: its example, its default, or the plainest one, with what is needed and no more. */
function exampleOf(given, api, depth = 0) {
  const schema = resolve(given, api);
  if (schema.examples?.length) return schema.examples[0];
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return exampleOf(schema.anyOf[0], api, depth);
  if (depth > DEEPEST) return null;
  if (schema.type === "array") return [exampleOf(schema.items, api, depth + 1)];
  if (schema.type === "object") {
    const { properties = {}, required = [] } = schema;
    return Object.fromEntries(required.map((name) => [name, exampleOf(properties[name], api, depth + 1)]));
  }
  return { string: "…", integer: 1, number: 1, boolean: true }[schema.type] ?? null;
}

wireSkipLink();
show();
