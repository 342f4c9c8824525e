// What the editor knows of PromQL: completion from this server, errors at their place, functions and metrics.
import { syntaxTree } from "@codemirror/language";
import { linter, type Diagnostic } from "@codemirror/lint";
import type { EditorState, Extension } from "@codemirror/state";
import { hoverTooltip, type EditorView } from "@codemirror/view";
import type { SyntaxNode } from "@lezer/common";
import { PromQLExtension } from "@prometheus-io/codemirror-promql";
import type { PrometheusClient } from "@prometheus-io/codemirror-promql";
import {
  aggregateOpTerms,
  functionIdentifierTerms,
} from "@prometheus-io/codemirror-promql/dist/esm/complete/promql.terms";
import { getFunction } from "@prometheus-io/codemirror-promql/dist/esm/types/function";
import { EqlSingle } from "@prometheus-io/lezer-promql";
import { ApiError, get, post } from "./api";

const MAX_NAMES = 20_000;
const CACHE_MS = 60_000;
const LINT_DELAY_MS = 250;

interface Known {
  type: string;
  help: string;
}

const cache = new Map<string, { at: number; value: Promise<unknown> }>();

/** What a path answers, remembered for a minute. */
function cached<T>(path: string, parameters: Record<string, string | number | string[]>, otherwise: T): Promise<T> {
  const key = path + JSON.stringify(parameters);
  const found = cache.get(key);
  if (found && Date.now() - found.at < CACHE_MS) return found.value as Promise<T>;
  const value = get<T>(path, parameters).then(
    (answer) => answer.data,
    () => {
      cache.delete(key);
      return otherwise;
    },
  );
  cache.set(key, { at: Date.now(), value });
  return value;
}

function quoted(text: string): string {
  return JSON.stringify(text);
}

interface Matching {
  type: number;
  name: string;
  value: string;
}

/** A selector of a metric and equality matchers, or nothing if it would select everything. */
function selector(metric?: string, matchers: Matching[] = [], except?: string): Record<string, string[]> {
  const parts = matchers
    .filter((matcher) => matcher.name !== except && matcher.value && matcher.type === EqlSingle)
    .map((matcher) => `${matcher.name}=${quoted(matcher.value)}`);
  if (metric) parts.unshift(`__name__=${quoted(metric)}`);
  return parts.length ? { "match[]": [`{${parts.join(",")}}`] } : {};
}

/** The client for codemirror-promql. It asks over all of time: what is not sampled any more can be asked for, too. */
class Client implements PrometheusClient {
  labelNames(metric?: string): Promise<string[]> {
    return cached("api/v1/labels", { limit: MAX_NAMES, ...selector(metric) }, []);
  }

  labelValues(label: string, metric?: string, matchers?: Matching[]): Promise<string[]> {
    const path = `api/v1/label/${encodeURIComponent(label)}/values`;
    return cached(path, { limit: MAX_NAMES, ...selector(metric, matchers, label) }, []);
  }

  metricMetadata(): Promise<Record<string, Known[]>> {
    return cached("api/v1/metadata", {}, {});
  }

  series(metric: string, matchers?: Matching[], label?: string): Promise<Map<string, string>[]> {
    const where = selector(metric, matchers, label);
    if (!where["match[]"]) return Promise.resolve([]);
    return cached<Map<string, string>[]>("api/v1/series", { limit: 1000, ...where }, []);
  }

  metricNames(): Promise<string[]> {
    return this.labelValues("__name__");
  }

  flags(): Promise<Record<string, string>> {
    return Promise.resolve({});
  }
}

const client = new Client();

export function promql(): Extension {
  return [
    new PromQLExtension().activateLinter(false).setComplete({ remote: client, maxMetricsMetadata: 5000 }).asExtension(),
    linter(lint, { delay: LINT_DELAY_MS }),
    hoverTooltip(hover),
  ];
}

const POSITION = /(\d+):(\d+): parse error: ([\s\S]*)$/;

/** Where an error of the server is in a text: its line, its column in bytes of UTF-8, and the token there. */
export function locate(text: string, message: string): Diagnostic {
  const found = POSITION.exec(message);
  if (!found) return { from: 0, to: text.length, severity: "error", message };
  const lines = text.split("\n");
  const line = Math.min(Number(found[1]), lines.length) - 1;
  const start = lines.slice(0, line).reduce((sum, one) => sum + one.length + 1, 0);
  const before = new TextDecoder().decode(new TextEncoder().encode(lines[line]).slice(0, Number(found[2]) - 1));
  const from = Math.min(start + before.length, text.length);
  const token = /^(\w+|"[^"]*"?|\s+|\S)/.exec(text.slice(from))?.[0] ?? "";
  // At the end of the text the last character is marked, so that there is something to see.
  return { from: token ? from : Math.max(0, from - 1), to: from + token.length, severity: "error", message: found[3] };
}

async function lint(view: EditorView): Promise<Diagnostic[]> {
  const text = view.state.doc.toString();
  if (!text.trim()) return [];
  try {
    await post("api/v1/parse_query", { query: text });
    return [];
  } catch (error) {
    return error instanceof ApiError && error.status === 400 ? [locate(text, error.message)] : [];
  }
}

interface Signature {
  name: string;
  parts: string[];
  returns: string;
  info: string;
}

const TYPES: Record<string, string> = { vector: "instant vector", matrix: "range vector" };
const PARAMETERS: Record<string, string[]> = {
  topk: ["k scalar", "instant vector"],
  bottomk: ["k scalar", "instant vector"],
  limitk: ["k scalar", "instant vector"],
  limit_ratio: ["ratio scalar", "instant vector"],
  quantile: ["φ scalar", "instant vector"],
  count_values: ["label string", "instant vector"],
};

function typeName(type: string): string {
  return TYPES[type] ?? type;
}

/** What a function or an aggregation takes; undefined if there is none of this name. */
function signatureOf(name: string, id: number | undefined): Signature | undefined {
  const term = [...functionIdentifierTerms, ...aggregateOpTerms].find((one) => one.label.replace(/\(.*/, "") === name);
  if (!term) return undefined;
  const info = term.info ?? "";
  if (id === undefined) {
    return { name, parts: PARAMETERS[name] ?? ["instant vector"], returns: "instant vector", info };
  }
  try {
    const known = getFunction(id);
    const parts = known.argTypes.map((type, i) => {
      const optional = known.variadic !== 0 && i >= known.argTypes.length - Math.max(1, known.variadic);
      return typeName(type) + (optional ? (known.variadic < 0 ? " …" : "?") : "");
    });
    return { name, parts, returns: typeName(known.returnType), info };
  } catch {
    return { name, parts: ["…"], returns: "instant vector", info };
  }
}

/** Name and grammar id of the call that a node is. */
function callee(state: EditorState, node: SyntaxNode): Signature | undefined {
  if (node.name === "FunctionCall") {
    const identifier = node.getChild("FunctionIdentifier");
    const inner = identifier?.firstChild;
    return identifier && inner ? signatureOf(state.sliceDoc(identifier.from, identifier.to), inner.type.id) : undefined;
  }
  if (node.name === "AggregateExpr") {
    const operator = node.getChild("AggregateOp");
    return operator ? signatureOf(state.sliceDoc(operator.from, operator.to).toLowerCase(), undefined) : undefined;
  }
  return undefined;
}

export interface Help extends Signature {
  /** The argument that the cursor is in. */
  argument: number;
}

/** The call around the cursor. */
export function helpAt(state: EditorState): Help | undefined {
  const at = state.selection.main.head;
  for (let node: SyntaxNode | null = syntaxTree(state).resolveInner(at, -1); node; node = node.parent) {
    const body = node.name === "FunctionCallBody" ? node : null;
    const parent = body?.parent;
    if (!body || !parent || at <= body.from) continue;
    if (at >= body.to && state.sliceDoc(body.to - 1, body.to) === ")") continue;
    const signature = callee(state, parent);
    if (!signature) continue;
    return { ...signature, argument: Math.min(commasBefore(state, body, at), signature.parts.length - 1) };
  }
  return undefined;
}

function commasBefore(state: EditorState, body: SyntaxNode, at: number): number {
  let count = 0;
  let depth = 0;
  let quote = "";
  for (const character of state.sliceDoc(body.from + 1, at)) {
    if (quote) quote = character === quote ? "" : quote;
    else if ("\"'`".includes(character)) quote = character;
    else if ("([{".includes(character)) depth += 1;
    else if (")]}".includes(character)) depth -= 1;
    else if (character === "," && depth === 0) count += 1;
  }
  return count;
}

async function hover(view: EditorView, at: number): Promise<ReturnType<typeof tooltip> | null> {
  for (let node: SyntaxNode | null = syntaxTree(view.state).resolveInner(at, 1); node; node = node.parent) {
    if (node.name === "FunctionIdentifier" || node.name === "AggregateOp") {
      const signature = node.parent && callee(view.state, node.parent);
      return signature ? tooltip(node, `${signature.name}(${signature.parts.join(", ")}) → ${signature.returns}`, signature.info) : null;
    }
    if (node.name === "VectorSelector") {
      const name = node.getChild("Identifier");
      if (!name || at > name.to) return null;
      const metric = view.state.sliceDoc(name.from, name.to);
      const family = metric.replace(/_(bucket|sum|count|total)$/, "");
      const known = await client.metricMetadata();
      const found = (known[metric] ?? known[family])?.[0];
      return found ? tooltip(name, `${metric}: ${found.type}`, found.help) : null;
    }
  }
  return null;
}

function tooltip(node: SyntaxNode, title: string, text: string) {
  return {
    pos: node.from,
    end: node.to,
    above: true,
    create: () => {
      const dom = document.createElement("div");
      dom.className = "tabor-hover";
      const head = document.createElement("b");
      head.textContent = title;
      const body = document.createElement("div");
      body.textContent = text;
      dom.append(head, body);
      return { dom };
    },
  };
}
