// The query view: expressions over one window of time, all of it in the address.
import type { EditorView } from "@codemirror/view";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { get } from "./api";
import { HistoryDialog } from "./history";
import { addressOf, go, isUtc, parseQueryState, queryParameters, usePlace, type PanelState, type QueryState } from "./location";
import { Panel, type Window } from "./panel";
import { remember, useTheme } from "./settings";
import { TimeBar } from "./timebar";

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 604_800];
const MAX_POINTS = 400;

/** A round step that gives at most MAX_POINTS points; below a second if the range is short. */
export function chooseStep(range: number): number {
  if (range / MAX_POINTS <= 0.5) return Math.max(0.001, Math.ceil((range / MAX_POINTS) * 1000) / 1000);
  return STEPS.find((step) => range / step <= MAX_POINTS) ?? Math.ceil(range / MAX_POINTS);
}

export function QueryView() {
  const place = usePlace();
  const utc = isUtc(place.parameters);
  const address = queryParameters(parseQueryState(place.parameters)).toString();
  const state = useMemo(() => parseQueryState(place.parameters), [address]);
  const { isDark } = useTheme();
  const [run, setRun] = useState(0);
  const [isHistoryOpen, setHistoryOpen] = useState(false);
  const views = useRef<(EditorView | undefined)[]>([]);
  /** What is typed by now; the same as in `state` after a run. */
  const texts = useRef<string[]>([]);
  const seen = useRef<QueryState | undefined>(undefined);
  if (seen.current !== state) {
    seen.current = state;
    texts.current = state.panels.map(({ expression }) => expression);
  }

  const window = useMemo((): Window => {
    const end = state.end ?? Math.floor(Date.now() / 1000);
    return { start: end - state.range, end, step: state.step ?? chooseStep(state.range), run };
  }, [state.range, state.end, state.step, run]);

  useEffect(() => {
    if (!state.refresh) return;
    const timer = setInterval(() => document.hidden || setRun((n) => n + 1), state.refresh * 1000);
    return () => clearInterval(timer);
  }, [state.refresh]);

  /** Show this from now on; what is typed and was not run is taken along. */
  const change = (next: Partial<QueryState>, replace = false) => go(addressOf("query", queryParameters({ ...withTexts(), ...next })), replace);
  const withTexts = (): QueryState => ({
    ...state,
    panels: state.panels.map((panel, i) => ({ ...panel, expression: texts.current[i] ?? panel.expression })),
  });
  const changePanel = (index: number, next: Partial<PanelState>, replace = false) =>
    change({ panels: withTexts().panels.map((panel, i) => (i === index ? { ...panel, ...next } : panel)) }, replace);
  const runAll = () => {
    texts.current.forEach(remember);
    change({});
    setRun((n) => n + 1);
  };
  const add = () => {
    change({ panels: [...withTexts().panels, { expression: "", mode: "graph", hidden: [] }] });
    requestAnimationFrame(() => requestAnimationFrame(() => views.current[state.panels.length]?.focus()));
  };
  const take = (expression: string) => {
    const index = texts.current.findIndex((text) => !text.trim());
    const at = index < 0 ? texts.current.length - 1 : index;
    changePanel(at, { expression, hidden: [] });
    remember(expression);
    views.current[at]?.focus();
  };

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== "/" || isTyping(event)) return;
      event.preventDefault();
      views.current[0]?.focus();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);

  return (
    <>
      <h1 class="hidden">Query</h1>
      <div class="toolbar">
        <TimeBar state={state} end={window.end} step={window.step} utc={utc} onChange={(next) => change(next)} />
        <span class="spacer" />
        <button onClick={() => setHistoryOpen(true)}>History</button>
        {state.panels.length > 1 && (
          <button class="primary" onClick={runAll}>
            Run all
          </button>
        )}
      </div>
      {state.panels.map((panel, i) => (
        <Panel
          key={i}
          number={i + 1}
          state={panel}
          window={window}
          utc={utc}
          isDark={isDark}
          canRemove={state.panels.length > 1}
          onText={(text) => (texts.current[i] = text)}
          onRun={runAll}
          onMode={(mode) => changePanel(i, { mode })}
          onHidden={(hidden) => changePanel(i, { hidden }, true)}
          onRemove={() => change({ panels: withTexts().panels.filter((_, at) => at !== i) })}
          onZoom={(start, end) => change({ range: roundUp(end - start), end: Math.ceil(end * 1000) / 1000 })}
          onView={(view) => (views.current[i] = view)}
        />
      ))}
      <button onClick={add}>Add an expression</button>
      {state.panels.every(({ expression }) => !expression.trim()) && <Welcome onTake={take} />}
      {isHistoryOpen && (
        <HistoryDialog
          onClose={() => setHistoryOpen(false)}
          onTake={(expression) => {
            setHistoryOpen(false);
            take(expression);
          }}
        />
      )}
    </>
  );
}

/** Where keys are text. Events of a shadow root seem to come from its host. */
export function isTyping(event: KeyboardEvent): boolean {
  const target = event.composedPath()[0];
  return (
    event.ctrlKey || event.metaKey || event.altKey ||
    (target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)))
  );
}

function roundUp(seconds: number): number {
  return seconds > 10 ? Math.ceil(seconds) : Math.ceil(seconds * 1000) / 1000;
}

function Welcome({ onTake }: { onTake: (expression: string) => void }) {
  const [metrics, setMetrics] = useState<string[]>();
  useEffect(() => {
    get<string[]>("api/v1/label/__name__/values", { limit: 24 }).then(
      ({ data }) => setMetrics(data),
      () => setMetrics(undefined),
    );
  }, []);
  if (!metrics) return null;
  if (!metrics.length) {
    return (
      <p class="empty">
        Nothing has been written yet. Point a Prometheus here with <code>remote_write: [&#123;url: {new URL("api/v1/write", location.href).href}&#125;]</code>.
      </p>
    );
  }
  return (
    <section class="welcome" aria-label="Some metrics">
      <p class="muted">Some of the metrics that are here:</p>
      <div class="chips">
        {metrics.map((metric) => (
          <button key={metric} class="chip" onClick={() => onTake(/^[a-zA-Z_:][\w:]*$/.test(metric) ? metric : `{${JSON.stringify(metric)}}`)}>
            {metric}
          </button>
        ))}
      </div>
    </section>
  );
}
