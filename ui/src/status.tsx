// The process: versions, limits and how close it is to them, settings; queries that run, wait and were slow.
import { useState } from "preact/hooks";
import { remove, textOf } from "./api";
import { Figure } from "./cardinality";
import { bytes, formatTime, roughly, short, whole } from "./format";
import { isUtc, queryAddress, usePlace } from "./location";
import { usePolled } from "./poll";

interface Process {
  service: string;
  version: string;
  python: string;
  started: number;
  time: number;
  cores: number;
  cpuSeconds: number;
  peakMemoryBytes: number;
  settings: { name: string; value: string; source: string }[];
  limits: { name: string; flag: string; used: number; limit: number }[];
}

interface Query {
  id: string;
  route: string;
  query: string;
  state?: string;
  outcome?: string;
  start: number;
  running_seconds: number;
  samples: number;
  series: number;
  client: string;
  principal: string;
  tenant: string;
  stages?: Record<string, number>;
}

interface Queries {
  queries: Query[];
  slow: Query[];
  slow_threshold_seconds: number;
}

export function StatusView() {
  const { data, error } = usePolled<Process>("api/v1/status/process", 5000);
  const utc = isUtc(usePlace().parameters);
  return (
    <>
      <h1>Status</h1>
      {error && (
        <p class="note bad" role="alert">
          {error}
        </p>
      )}
      {data && (
        <div class="figures">
          <Figure name={`tabor ${data.service}`} value={data.version} />
          <Figure name={`up, since ${formatTime(Math.floor(data.started), utc)}`} value={roughly(data.time - data.started)} />
          <Figure name={`of CPU on ${data.cores} cores`} value={roughly(data.cpuSeconds)} />
          <Figure name="of memory at most" value={bytes(data.peakMemoryBytes)} />
          <Figure name="Python" value={data.python} />
        </div>
      )}
      <QueryLists utc={utc} />
      {data && <Limits limits={data.limits} />}
      {data && <Settings settings={data.settings} />}
    </>
  );
}

function QueryLists({ utc }: { utc: boolean }) {
  const { data, error, again } = usePolled<Queries>("api/v1/status/queries", 1000);
  const [refused, setRefused] = useState("");
  const cancel = async (id: string) => {
    try {
      await remove(`api/v1/status/queries/${encodeURIComponent(id)}`);
      setRefused("");
    } catch (reason) {
      setRefused(textOf(reason));
    }
    again();
  };
  return (
    <>
      <section class="card">
        <h2>Queries that run or wait</h2>
        {(error || refused) && (
          <p class="note bad" role="alert">
            {error || refused}
          </p>
        )}
        {data &&
          (data.queries.length ? (
            <QueryTable label="Queries that run or wait" queries={data.queries} utc={utc} onCancel={(id) => void cancel(id)} />
          ) : (
            <p class="empty">None just now.</p>
          ))}
      </section>
      <section class="card">
        <h2>Slow queries</h2>
        {data &&
          (data.slow.length ? (
            <QueryTable label="Slow queries" queries={data.slow} utc={utc} />
          ) : (
            <p class="empty">None that took longer than {roughly(data.slow_threshold_seconds)} (--slow-query-threshold).</p>
          ))}
      </section>
    </>
  );
}

function QueryTable({ label, queries, utc, onCancel }: { label: string; queries: Query[]; utc: boolean; onCancel?: (id: string) => void }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table>
        <thead>
          <tr>
            <th scope="col">query</th>
            <th scope="col">{onCancel ? "state" : "outcome"}</th>
            <th scope="col" class="value">
              time
            </th>
            <th scope="col" class="value">
              samples
            </th>
            <th scope="col">from</th>
            {onCancel && (
              <th scope="col">
                <span class="hidden">what to do</span>
              </th>
            )}
          </tr>
        </thead>
        <tbody>
          {queries.map((query) => (
            <tr key={query.id + query.start}>
              <td class="query-text">
                {query.route.startsWith("/api/v1/query") ? (
                  <a href={queryAddress(query.query, query.route.endsWith("range") ? "graph" : "table")}>
                    <code>{query.query}</code>
                  </a>
                ) : (
                  <code>
                    {query.route} {query.query}
                  </code>
                )}
              </td>
              <td>{query.state ?? query.outcome}</td>
              <td class="value" title={`since ${formatTime(query.start, utc)}${stagesOf(query)}`}>
                {roughly(query.running_seconds)}
              </td>
              <td class="value" title={`${whole(query.samples)} samples of ${whole(query.series)} series`}>
                {short(query.samples)}
              </td>
              <td>
                {query.principal}
                {query.tenant && ` (${query.tenant})`} <span class="muted">{query.client}</span>
              </td>
              {onCancel && (
                <td>
                  <button class="small stop" aria-label={`Cancel ${query.query}`} disabled={query.state === "cancelled"} onClick={() => onCancel(query.id)}>
                    cancel
                  </button>
                </td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function stagesOf(query: Query): string {
  const stages = Object.entries(query.stages ?? {}).map(([stage, seconds]) => `${stage} ${roughly(seconds)}`);
  return stages.length ? `; ${stages.join(", ")}` : "";
}

function Limits({ limits }: { limits: Process["limits"] }) {
  return (
    <section class="card">
      <h2>Limits</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Limits">
        <table>
          <tbody>
            {limits.map(({ name, flag, used, limit }) => (
              <tr key={flag}>
                <th scope="row">{name}</th>
                <td class="value">
                  {short(used)} of {short(limit)}
                </td>
                <td class="share">
                  <meter min={0} max={limit} high={0.8 * limit} value={used} aria-label={`${name}: ${short(used)} of ${short(limit)}`} />
                </td>
                <td class="nowrap">
                  <code>--{flag}</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Settings({ settings }: { settings: Process["settings"] }) {
  return (
    <section class="card">
      <h2>Settings</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Settings">
        <table>
          <thead>
            <tr>
              <th scope="col">flag</th>
              <th scope="col">value</th>
              <th scope="col">from</th>
            </tr>
          </thead>
          <tbody>
            {settings.map(({ name, value, source }) => (
              <tr key={name}>
                <th scope="row" class="nowrap">
                  <code>--{name}</code>
                </th>
                <td>
                  <code>{value}</code>
                </td>
                <td class={source === "default" ? "muted" : ""}>{source}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
