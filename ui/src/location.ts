// The address: which view, and all that it shows. Whoever gets the address sees the same.
import { useEffect, useState } from "preact/hooks";
import { formatDuration, parseDuration } from "./format";

export const VIEWS = ["query", "cardinality", "cluster", "status"] as const;
export type View = (typeof VIEWS)[number];

export interface Place {
  view: View;
  parameters: URLSearchParams;
}

const changed = new EventTarget();
addEventListener("popstate", () => changed.dispatchEvent(new Event("change")));

export function place(): Place {
  const last = location.pathname.split("/").pop() ?? "";
  return { view: VIEWS.find((view) => view === last) ?? "query", parameters: new URLSearchParams(location.search) };
}

/** The address of a view, relative, with the time zone that is chosen. */
export function addressOf(view: View, parameters = new URLSearchParams()): string {
  const all = new URLSearchParams(parameters);
  if (isUtc(place().parameters)) all.set("utc", "1");
  const found = all.toString();
  return (view === "query" ? "./" : view) + (found ? `?${found}` : "");
}

/** Go somewhere; with `replace` the way back does not lead here again. */
export function go(address: string, replace = false): void {
  if (new URL(address, location.href).href !== location.href) {
    history[replace ? "replaceState" : "pushState"](null, "", address);
  }
  changed.dispatchEvent(new Event("change"));
}

export function usePlace(): Place {
  const [found, setFound] = useState(place);
  useEffect(() => {
    const follow = () => setFound(place());
    changed.addEventListener("change", follow);
    return () => changed.removeEventListener("change", follow);
  }, []);
  return found;
}

export function isUtc(parameters: URLSearchParams): boolean {
  return parameters.get("utc") === "1";
}

export function setUtc(utc: boolean): void {
  const parameters = new URLSearchParams(location.search);
  if (utc) parameters.set("utc", "1");
  else parameters.delete("utc");
  const found = parameters.toString();
  go(location.pathname + (found ? `?${found}` : ""), true);
}

export const MODES = ["graph", "stacked", "heatmap", "table"] as const;
export type Mode = (typeof MODES)[number];

export interface PanelState {
  expression: string;
  mode: Mode;
  /** Hashes of the series that the legend has switched off. */
  hidden: string[];
}

export interface QueryState {
  panels: PanelState[];
  /** Seconds; `end` is Unix time, or undefined for now; without `step` it is chosen. */
  range: number;
  end?: number;
  step?: number;
  /** Seconds between runs; 0 for none. */
  refresh: number;
}

export const DEFAULT_RANGE = 3600;

export function parseQueryState(parameters: URLSearchParams): QueryState {
  let expressions = parameters.getAll("e");
  let range = parseDuration(parameters.get("range") ?? "");
  if (!expressions.length && parameters.has("g0.expr")) {
    // Links to Prometheus' own page, as alerts carry them.
    for (let i = 0; parameters.has(`g${i}.expr`); i++) expressions.push(parameters.get(`g${i}.expr`)!);
    range = parseDuration(parameters.get("g0.range_input") ?? "");
  }
  if (!expressions.length) expressions = [""];
  const modes = parameters.getAll("m");
  const hidden = parameters.getAll("x");
  return {
    panels: expressions.map((expression, i) => ({
      expression,
      mode: MODES.find((mode) => mode === modes[i]) ?? "graph",
      hidden: hidden[i] ? hidden[i].split(".") : [],
    })),
    range: range ?? DEFAULT_RANGE,
    end: Number(parameters.get("end")) || undefined,
    step: parseDuration(parameters.get("step") ?? ""),
    refresh: parseDuration(parameters.get("refresh") ?? "") ?? 0,
  };
}

export function queryParameters(state: QueryState): URLSearchParams {
  const parameters = new URLSearchParams();
  for (const panel of state.panels) parameters.append("e", panel.expression);
  for (const panel of state.panels) parameters.append("m", panel.mode);
  if (state.panels.some((panel) => panel.hidden.length)) {
    for (const panel of state.panels) parameters.append("x", panel.hidden.join("."));
  }
  parameters.set("range", formatDuration(state.range));
  if (state.end !== undefined) parameters.set("end", String(state.end));
  if (state.step !== undefined) parameters.set("step", formatDuration(state.step));
  if (state.refresh) parameters.set("refresh", formatDuration(state.refresh));
  return parameters;
}

/** The address that shows one expression. */
export function queryAddress(expression: string, mode: Mode = "graph"): string {
  return addressOf(
    "query",
    queryParameters({ panels: [{ expression, mode, hidden: [] }], range: DEFAULT_RANGE, refresh: 0 }),
  );
}
