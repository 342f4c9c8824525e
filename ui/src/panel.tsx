// One expression: its editor, what it cost, its result as chart, heat map or table.
import type { EditorView } from "@codemirror/view";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { isAbort, post, textOf, type Answer } from "./api";
import { Chart } from "./chart";
import { Editor } from "./editor";
import { bytes, formatDuration, roughly, short, whole } from "./format";
import { heatOf } from "./heat";
import { Legend } from "./legend";
import { MODES, type Mode, type PanelState } from "./location";
import { columnsOf, hashOf, selectorOf, type Result, type Series, type Statistics } from "./series";
import { ResultTable } from "./table";

export interface Window {
  start: number;
  end: number;
  step: number;
  /** Counts runs, so that the same window can be asked for again. */
  run: number;
}

interface Props {
  number: number;
  state: PanelState;
  window: Window;
  utc: boolean;
  isDark: boolean;
  canRemove: boolean;
  onText: (text: string) => void;
  onRun: () => void;
  onMode: (mode: Mode) => void;
  onHidden: (hidden: string[]) => void;
  onRemove: () => void;
  onZoom: (start: number, end: number) => void;
  onView: (view: EditorView | undefined) => void;
}

interface Done {
  answer: Answer<Result>;
  window: Window;
  isRange: boolean;
  seconds: number;
}

const MODE_NAMES: Record<Mode, string> = { graph: "Graph", stacked: "Stacked", heatmap: "Heat map", table: "Table" };

export function Panel(props: Props) {
  const { number, state, window, utc, isDark } = props;
  const [done, setDone] = useState<Done>();
  const [error, setError] = useState("");
  const [startedAt, setStartedAt] = useState(0);
  const abort = useRef<AbortController | undefined>(undefined);
  const isRange = state.mode !== "table";

  useEffect(() => {
    abort.current?.abort();
    if (!state.expression.trim()) {
      setDone(undefined);
      setError("");
      setStartedAt(0);
      return;
    }
    const controller = new AbortController();
    abort.current = controller;
    const began = performance.now();
    setStartedAt(Date.now());
    const { start, end, step } = window;
    const asked = isRange
      ? post<Result>("api/v1/query_range", { query: state.expression, start, end, step, stats: "all" }, controller.signal)
      : post<Result>("api/v1/query", { query: state.expression, time: end, stats: "all" }, controller.signal);
    asked
      .then((answer) => {
        setDone({ answer, window, isRange, seconds: (performance.now() - began) / 1000 });
        setError("");
      })
      .catch((reason: unknown) => {
        if (abort.current !== controller) return;
        setError(isAbort(reason) ? "Stopped." : textOf(reason));
        setDone(undefined);
      })
      .finally(() => {
        if (abort.current === controller) setStartedAt(0);
      });
    return () => controller.abort();
  }, [state.expression, isRange, window]);

  const isCurrent = done !== undefined && done.isRange === isRange;
  return (
    <section class="panel card" aria-label={`Expression ${number}`}>
      <div class="ask">
        <Editor
          value={state.expression}
          label={`Expression ${number}`}
          error={error}
          onChange={props.onText}
          onRun={props.onRun}
          onView={props.onView}
        />
        {startedAt ? (
          <button class="stop" onClick={() => abort.current?.abort()}>
            Stop
          </button>
        ) : (
          <button class="primary" onClick={props.onRun} title="Enter">
            Run
          </button>
        )}
        {props.canRemove && (
          <button class="icon" aria-label={`Remove expression ${number}`} title="Remove" onClick={props.onRemove}>
            ×
          </button>
        )}
      </div>
      <div class="panel-head">
        <div class="tabs" role="group" aria-label="How to show it">
          {MODES.map((mode) => (
            <button key={mode} aria-pressed={state.mode === mode} onClick={() => props.onMode(mode)}>
              {MODE_NAMES[mode]}
            </button>
          ))}
        </div>
        <div class="cost" aria-live="polite">
          {startedAt ? <Elapsed since={startedAt} /> : done && isCurrent && <Cost done={done} />}
        </div>
      </div>
      {error && (
        <p class={error === "Stopped." ? "note" : "note bad"} role="alert">
          {error}
        </p>
      )}
      {done?.answer.warnings.map((warning) => (
        <p class="note warn" key={warning}>
          <b>Warning:</b> {warning}
        </p>
      ))}
      {done?.answer.infos.map((info) => (
        <p class="note" key={info}>
          <b>Note:</b> {info}
        </p>
      ))}
      <div class={startedAt && done ? "shown stale" : "shown"}>
        {done && isCurrent && (done.isRange ? <Graph {...props} done={done} isDark={isDark} /> : <ResultTable result={done.answer.data} utc={utc} />)}
      </div>
    </section>
  );
}

function Elapsed({ since }: { since: number }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 100);
    return () => clearInterval(timer);
  }, []);
  const seconds = (Date.now() - since) / 1000;
  return seconds < 0.2 ? null : <span>runs for {seconds.toFixed(1)} s …</span>;
}

function seriesCount(result: Result): number {
  return result.resultType === "scalar" || result.resultType === "string" ? 1 : result.result.length;
}

function Cost({ done }: { done: Done }) {
  const { data, size } = done.answer;
  const stats: Statistics | undefined = data.stats;
  const count = seriesCount(data);
  const facts: [string, string][] = [[`${whole(count)} series`, "in the answer"]];
  if (stats) {
    const { tabor } = stats;
    const stages = Object.entries(tabor.stages).map(([stage, seconds]) => `${stage} ${roughly(seconds)}`);
    facts.unshift([roughly(stats.timings.execTotalTime), `in the server: ${stages.join(", ")}; ${roughly(done.seconds)} until it was here`]);
    facts.push([`${short(stats.samples.totalQueryableSamples)} samples`, `looked at, peak ${whole(stats.samples.peakSamples)}; read ${whole(tabor.samplesRead)} of ${whole(tabor.seriesRead)} series`]);
    if (tabor.nodesAsked) facts.push([`${tabor.nodesAsked} ${tabor.nodesAsked === 1 ? "node" : "nodes"}`, `asked for ${tabor.partitions} partitions`]);
    const read = tabor.bytesRead || tabor.bytesReceived;
    if (read) facts.push([bytes(read), tabor.bytesReceived ? "received from the nodes" : "of chunks read"]);
  }
  facts.push([`${bytes(size)} answer`, "before compression"]);
  if (done.isRange) facts.push([`step ${formatDuration(done.window.step)}`, "between the points"]);
  return (
    <>
      {facts.map(([fact, title], i) => (
        <span key={i} title={`${fact} ${title}`}>
          {fact}
        </span>
      ))}
    </>
  );
}

function Graph({ state, done, utc, isDark, onHidden, onZoom, number }: Props & { done: Done }) {
  const { data } = done.answer;
  const { start, end, step } = done.window;
  const [focused, setFocused] = useState(-1);
  const series = useMemo(() => (data.resultType === "matrix" ? (data.result as Series[]) : []), [data]);
  const columns = useMemo(() => columnsOf(series, start, end, step), [series]);
  const names = useMemo(() => series.map(({ metric }) => selectorOf(metric)), [series]);
  const hashes = useMemo(() => series.map(({ metric }) => hashOf(metric)), [series]);
  const heat = useMemo(() => (state.mode === "heatmap" ? heatOf(series, start, end, step) : undefined), [series, state.mode]);
  const isShown = useMemo(() => hashes.map((hash) => !state.hidden.includes(hash)), [hashes, state.hidden.join()]);
  if (!series.length) return <p class="empty">No series match between these times.</p>;
  if (state.mode === "heatmap" && !heat) {
    return (
      <p class="empty">
        There are no buckets here. A heat map shows native histograms, or series with the label <code>le</code>: for instance{" "}
        <code>sum by (le) (rate(…_bucket[5m]))</code>.
      </p>
    );
  }
  return (
    <>
      <Chart
        label={`${MODE_NAMES[state.mode]} of ${whole(series.length)} series of expression ${number}`}
        columns={columns}
        names={names}
        isShown={isShown}
        isStacked={state.mode === "stacked"}
        heat={heat}
        isDark={isDark}
        utc={utc}
        focused={names.length <= 200 ? focused : -1}
        onZoom={onZoom}
      />
      {!heat && (
        <Legend
          series={series}
          columns={columns}
          isShown={isShown}
          isDark={isDark}
          onFocus={setFocused}
          onShown={(next) => onHidden(hashes.filter((_, i) => !next[i]))}
        />
      )}
    </>
  );
}
