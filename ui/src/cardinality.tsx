// Where series come from: metrics, labels and pairs with most of them; each leads to its query and its deletion.
import { useEffect, useState } from "preact/hooks";
import { get, isAbort, textOf } from "./api";
import { Dialog } from "./dialog";
import { formatTime, whole } from "./format";
import { addressOf, go, isUtc, queryAddress, usePlace } from "./location";

interface Cardinality {
  series: number;
  metrics: number;
  labels: number;
  seriesByMetric: { metric: string; series: number }[];
  valuesByLabel: { label: string; values: number; series: number }[];
  seriesByPair: { label: string; value: string; series: number }[];
  newSeriesByHour: { start: number; series: number }[];
}

const LIMITS = [10, 20, 50, 100];

function labelName(name: string): string {
  return /^[a-zA-Z_]\w*$/.test(name) ? name : JSON.stringify(name);
}

/** The selector of what a row counts, narrowed down by what is looked at already. */
function narrowed(selector: string, matcher: string): string {
  if (!selector) return `{${matcher}}`;
  const found = /^([^{]*)\{?([\s\S]*?)\}?$/.exec(selector.trim())!;
  const inner = [found[2].trim().replace(/,\s*$/, ""), matcher].filter(Boolean).join(", ");
  return `${found[1].trim()}{${inner}}`;
}

export function deleteCommand(selector: string): string {
  const quoted = `match[]=${selector}`.replaceAll("'", `'\\''`);
  return `curl -X POST '${new URL("api/v1/admin/tsdb/delete_series", location.href).href}' --data-urlencode '${quoted}'`;
}

export function CardinalityView() {
  const place = usePlace();
  const selector = place.parameters.get("match") ?? "";
  const limit = Number(place.parameters.get("limit")) || LIMITS[0];
  const [text, setText] = useState(selector);
  const [found, setFound] = useState<Cardinality>();
  const [error, setError] = useState("");
  const [deletion, setDeletion] = useState("");
  const show = (match: string, rows = limit) => {
    const parameters = new URLSearchParams();
    if (match.trim()) parameters.set("match", match.trim());
    if (rows !== LIMITS[0]) parameters.set("limit", String(rows));
    go(addressOf("cardinality", parameters));
  };
  useEffect(() => setText(selector), [selector]);
  useEffect(() => {
    const controller = new AbortController();
    setError("");
    get<Cardinality>("api/v1/cardinality", { limit, "match[]": selector || undefined }, controller.signal).then(
      ({ data }) => setFound(data),
      (reason: unknown) => {
        if (isAbort(reason)) return;
        setFound(undefined);
        setError(textOf(reason));
      },
    );
    return () => controller.abort();
  }, [selector, limit]);

  const row = (matcher: string, cells: [string, number, number?][], of: number) => {
    const exact = narrowed(selector, matcher);
    const [[name, count, more]] = cells;
    return (
      <tr key={matcher}>
        <td>
          <button class="plain name-button" title="Narrow down to this" onClick={() => show(exact)}>
            <code>{name}</code>
          </button>
        </td>
        <td class="value">
          {whole(count)}
          {more !== undefined && <span class="muted"> in {whole(more)} series</span>}
        </td>
        <td class="share">
          <meter min={0} max={1} value={of ? count / of : 0} aria-label={`${whole(count)} of ${whole(of)}`} />
        </td>
        <td class="actions">
          <a href={queryAddress(`count(${exact})`)} aria-label={`Query ${name}`} onClick={(event) => followed(event)}>
            query
          </a>{" "}
          <button class="small" aria-label={`Delete ${name} …`} onClick={() => setDeletion(exact)}>
            delete …
          </button>
        </td>
      </tr>
    );
  };
  const followed = (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go((event.currentTarget as HTMLAnchorElement).getAttribute("href")!);
  };
  return (
    <>
      <h1>Cardinality</h1>
      <form
        class="toolbar"
        onSubmit={(event) => {
          event.preventDefault();
          show(text);
        }}
      >
        <input
          class="wide"
          value={text}
          aria-label="Series to look at, as a selector"
          placeholder={'all series; narrow down with a selector such as {job="node"}'}
          spellcheck={false}
          autocapitalize="off"
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <select aria-label="Rows" value={String(limit)} onChange={(event) => show(selector, Number(event.currentTarget.value))}>
          {LIMITS.map((rows) => (
            <option key={rows} value={String(rows)}>
              {rows} rows
            </option>
          ))}
        </select>
        <button class="primary" type="submit">
          Look
        </button>
        {selector && (
          <button type="button" onClick={() => show("")}>
            All series
          </button>
        )}
      </form>
      {error && (
        <p class="note bad" role="alert">
          {error}
        </p>
      )}
      {found && (
        <>
          <div class="figures" aria-live="polite">
            <Figure name="series" value={found.series} />
            <Figure name="metrics" value={found.metrics} />
            <Figure name="labels" value={found.labels} />
          </div>
          <Churn hours={found.newSeriesByHour} utc={isUtc(place.parameters)} />
          <div class="columns">
            <List title="Metrics by series" columns={["metric", "series"]}>
              {found.seriesByMetric.map(({ metric, series }) => row(`__name__=${JSON.stringify(metric)}`, [[metric, series]], found.series))}
            </List>
            <List title="Labels by values" columns={["label", "values"]}>
              {found.valuesByLabel.map(({ label, values, series }) => row(`${labelName(label)}!=""`, [[label, values, series]], found.series))}
            </List>
            <List title="Pairs by series" columns={["label = value", "series"]}>
              {found.seriesByPair.map(({ label, value, series }) =>
                row(`${labelName(label)}=${JSON.stringify(value)}`, [[`${label}="${value}"`, series]], found.series),
              )}
            </List>
          </div>
        </>
      )}
      {deletion && (
        <Dialog title="Delete these series" onClose={() => setDeletion("")}>
          <p>
            This command deletes every sample of <code>{deletion}</code>, for good, on all replicas. With <code>start=</code> and <code>end=</code> it deletes a
            range of time. In a cluster it goes to <code>tabor ingest</code>. The page does not run it.
          </p>
          <Copyable text={deleteCommand(deletion)} />
        </Dialog>
      )}
    </>
  );
}

/** Bars of the last hours. */
function Churn({ hours, utc }: { hours: Cardinality["newSeriesByHour"]; utc: boolean }) {
  const most = Math.max(1, ...hours.map(({ series }) => series));
  const sum = hours.reduce((total, { series }) => total + series, 0);
  return (
    <section class="card" aria-label="New series by hour">
      <h2>New series by hour</h2>
      <p class="muted">
        {whole(sum)} series have their first sample in these {hours.length} hours, at most {whole(Math.max(0, ...hours.map(({ series }) => series)))} in one of them.
      </p>
      <ol class="bars">
        {hours.map(({ start, series }) => (
          <li key={start} title={`${formatTime(start, utc)}: ${whole(series)} new series`}>
            <span class="hidden">
              {formatTime(start, utc)}: {whole(series)}
            </span>
            <div class="bar-fill" style={{ height: `${series ? Math.max(2, (100 * series) / most) : 0}%` }} aria-hidden="true" />
          </li>
        ))}
      </ol>
      <div class="bar-axis muted" aria-hidden="true">
        <span>{hours[0] && formatTime(hours[0].start, utc).slice(5, 16)}</span>
        <span>now</span>
      </div>
    </section>
  );
}

export function Copyable({ text }: { text: string }) {
  const [isCopied, setCopied] = useState(false);
  return (
    <div class="copyable">
      <pre tabIndex={0}>{text}</pre>
      {/* Browsers give pages the clipboard on HTTPS and on this machine only. */}
      {navigator.clipboard && (
        <button
          onClick={() => {
            void navigator.clipboard.writeText(text).then(() => setCopied(true));
          }}
        >
          {isCopied ? "Copied" : "Copy"}
        </button>
      )}
    </div>
  );
}

export function Figure({ name, value }: { name: string; value: number | string }) {
  return (
    <div class="figure">
      <b>{typeof value === "number" ? whole(value) : value}</b> <span class="muted">{name}</span>
    </div>
  );
}

function List({ title, columns, children }: { title: string; columns: string[]; children: unknown[] }) {
  return (
    <section class="card">
      <h2>{title}</h2>
      {children.length ? (
        <div class="scroll" tabIndex={0} role="region" aria-label={title}>
          <table>
            <thead>
              <tr>
                <th scope="col">{columns[0]}</th>
                <th scope="col" class="value">
                  {columns[1]}
                </th>
                <th scope="col" class="share">
                  <span class="hidden">share</span>
                </th>
                <th scope="col">
                  <span class="hidden">what to do</span>
                </th>
              </tr>
            </thead>
            <tbody>{children as never}</tbody>
          </table>
        </div>
      ) : (
        <p class="empty">None.</p>
      )}
    </section>
  );
}
