// Nodes, and which partition is on which of them, how far each replica is; the log.
import { useMemo } from "preact/hooks";
import { Figure } from "./cardinality";
import { bytes, formatDuration, roughly, whole } from "./format";
import { usePolled } from "./poll";

interface Replica {
  node: string;
  state: "whole" | "coming" | "missing";
  next_offset: number | null;
  lag: number | null;
  digest: "equal" | "differs" | null;
  compared_at: number | null;
  copied_from: string | null;
  copied_bytes: number | null;
  copied_in_s: number | null;
  copy_bytes: number | null;
}

interface Partition {
  partition: number;
  replicas: Replica[];
  high_watermark: number | null;
  lag: number | null;
}

interface Node {
  ordinal: number | null;
  name: string;
  presence: string;
  address: string;
  state: string;
  heard_s: number;
  partitions: number;
  copying: number;
  lag: number | null;
}

export interface Cluster {
  partitions: number;
  replicas: number;
  nodes: Node[];
  partition_states: Partition[];
  under_replicated: number[];
  unavailable: number[];
  log: { kind: string; retention_ms: number | null; retention_bytes: number | null; starts: number[] | null };
  time: number;
}

interface OwnPartition {
  partition: number;
  series: number;
  samples: number;
  bytes: number;
  digest?: string;
}

const EVERY_MS = 2000;
const DIGESTS_EVERY_MS = 15_000;

/** Records by which a replica may be behind without that meaning anything, a little, and much. */
function lagClass(replica: Replica): string {
  if (replica.digest === "differs") return "lag-3";
  if (replica.state === "missing") return "lag-missing";
  const lag = replica.lag;
  if (lag === null) return "lag-unknown";
  return lag <= 10 ? "lag-0" : lag <= 1000 ? "lag-1" : lag <= 100_000 ? "lag-2" : "lag-3";
}

export function ClusterView() {
  const { data, before, error } = usePolled<Cluster>("api/v1/status/cluster", EVERY_MS);
  if (!data) return <>{title(error)}</>;
  return (
    <>
      {title(error)}
      <div class="figures">
        <Figure name={data.nodes.length === 1 ? "node" : "nodes"} value={data.nodes.length} />
        <Figure name="partitions" value={data.partitions} />
        <Figure name={data.replicas === 1 ? "replica of each" : "replicas of each"} value={data.replicas} />
      </div>
      <State data={data} />
      <Nodes nodes={data.nodes} />
      <Grid data={data} before={before} />
      <Log data={data} />
      {data.log.kind === "local" || data.replicas === 1 ? <Views /> : <Audit data={data} />}
    </>
  );
}

function title(error: string) {
  return (
    <>
      <h1>Cluster</h1>
      {error && (
        <p class="note bad" role="alert">
          {error}
        </p>
      )}
    </>
  );
}

function some(partitions: number[]): string {
  return partitions.slice(0, 20).join(", ") + (partitions.length > 20 ? ` and ${partitions.length - 20} more` : "");
}

function State({ data }: { data: Cluster }) {
  if (data.unavailable.length) {
    return (
      <p class="note bad" role="status">
        <b>Not available:</b> partitions {some(data.unavailable)} have no replica that is whole; queries fail, or are partial if they may be.
      </p>
    );
  }
  if (data.under_replicated.length) {
    return (
      <p class="note warn" role="status">
        <b>Under-replicated:</b> partitions {some(data.under_replicated)} are on fewer nodes than they should be.
      </p>
    );
  }
  return (
    <p class="note good" role="status">
      Every partition has all its replicas.
    </p>
  );
}

function Nodes({ nodes }: { nodes: Node[] }) {
  return (
    <section class="card">
      <h2>Nodes</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Nodes">
        <table>
          <thead>
            <tr>
              {["node", "state", "address", "heard"].map((name) => (
                <th scope="col" key={name}>
                  {name}
                </th>
              ))}
              {["partitions", "behind", "lag"].map((name) => (
                <th scope="col" class="value" key={name}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {nodes.map((node) => (
              <tr key={node.name}>
                <th scope="row">{node.name}</th>
                <td>
                  <span class={node.state === "ready" ? "pill good" : node.state === "catching up" ? "pill warn" : "pill bad"}>{node.state}</span>
                  {node.presence !== "in" && <span class="muted"> {node.presence}</span>}
                </td>
                <td>
                  <code>{node.address}</code>
                </td>
                <td>{node.heard_s < 1 ? "now" : `${roughly(node.heard_s)} ago`}</td>
                <td class="value">{node.partitions}</td>
                <td class="value">{node.copying}</td>
                <td class="value">{node.lag === null ? "?" : whole(node.lag)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** Seconds until a replica has caught up, at the pace since the last look; undefined if that is not known. */
function secondsLeft(replica: Replica, partition: number, data: Cluster, before?: Cluster): number | undefined {
  const old = before?.partition_states.find((one) => one.partition === partition)?.replicas.find((one) => one.node === replica.node);
  if (!old || old.lag === null || replica.lag === null || data.time <= before!.time) return undefined;
  const pace = (old.lag - replica.lag) / (data.time - before!.time);
  return pace > 0 ? replica.lag / pace : undefined;
}

/** A copy from another node or a backup: how much is here, of how much, how fast, and for how long still. */
function Copy({ replica, partition }: { replica: Replica; partition: number }) {
  const here = replica.copied_bytes ?? 0;
  const pace = replica.copied_in_s ? here / replica.copied_in_s : 0;
  // What another node says of the whole is about its samples; labels come on top.
  const total = replica.copy_bytes !== null && replica.copy_bytes > here ? replica.copy_bytes : undefined;
  return (
    <>
      {total !== undefined && <meter min={0} max={1} value={here / total} aria-label={`Progress of partition ${partition}`} />}
      <span>
        copied from {replica.copied_from}: {bytes(here)}
        {total !== undefined && ` of about ${bytes(total)}`} are here
        {pace > 0 && `, ${bytes(Math.round(pace))} a second`}
        {pace > 0 && total !== undefined && `, about ${roughly((total - here) / pace)} left`}
      </span>
    </>
  );
}

function Grid({ data, before }: { data: Cluster; before?: Cluster }) {
  const names = useMemo(() => [...new Set(data.partition_states.flatMap(({ replicas }) => replicas.map(({ node }) => node)))].sort(), [data]);
  const moving = data.partition_states.flatMap(({ partition, high_watermark, replicas }) =>
    replicas.filter(({ state }) => state !== "whole").map((replica) => ({ partition, high_watermark, replica })),
  );
  return (
    <section class="card">
      <h2>Partitions and their replicas</h2>
      <p class="muted key" aria-hidden="true">
        records behind the log: <span class="cell lag-0">≤ 10</span> <span class="cell lag-1">≤ 1,000</span> <span class="cell lag-2">≤ 100,000</span>{" "}
        <span class="cell lag-3">more</span> <span class="cell lag-missing">missing</span> with =, its digest was equal when compared last
      </p>
      <div class="scroll" tabIndex={0} role="region" aria-label="Partitions and their replicas">
        <table class="grid">
          <thead>
            <tr>
              <th scope="col">partition</th>
              <th scope="col" class="value">
                log
              </th>
              {names.map((name) => (
                <th scope="col" key={name}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {data.partition_states.map(({ partition, high_watermark, replicas }) => (
              <tr key={partition}>
                <th scope="row">{partition}</th>
                <td class="value">
                  {data.log.starts ? whole(data.log.starts[partition]) : "?"} … {high_watermark === null ? "?" : whole(high_watermark)}
                </td>
                {names.map((name) => {
                  const replica = replicas.find(({ node }) => node === name);
                  if (!replica) return <td key={name} class="cell" aria-label="not here" />;
                  const lag = replica.lag === null ? "?" : whole(replica.lag);
                  const compared = replica.compared_at === null ? "" : `, digest ${replica.digest} at offset ${whole(replica.compared_at)}`;
                  return (
                    <td key={name} class={`cell ${lagClass(replica)}`} title={`${replica.state}, next offset ${replica.next_offset ?? "?"}, lag ${lag}${compared}`}>
                      {replica.digest === "differs" ? "digest differs, " : ""}
                      {replica.copied_from !== null ? "copying" : replica.state === "missing" ? "missing" : replica.state === "coming" ? `coming, ${lag} behind` : replica.lag ? `${lag} behind` : "whole"}
                      {replica.digest === "equal" && " ="}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {moving.length > 0 && (
        <>
          <h3>Rebuilds</h3>
          <ul>
            {moving.slice(0, 50).map(({ partition, high_watermark, replica }) => {
              const start = data.log.starts?.[partition] ?? 0;
              const whole_ = (high_watermark ?? 0) - start;
              const left = secondsLeft(replica, partition, data, before);
              return (
                <li key={`${partition} ${replica.node}`} class="row">
                  <span>
                    partition {partition} on {replica.node}
                  </span>
                  {replica.copied_from !== null ? (
                    <Copy replica={replica} partition={partition} />
                  ) : replica.next_offset === null ? (
                    <span class="muted">not there yet: it waits</span>
                  ) : (
                    <>
                      <meter min={0} max={1} value={whole_ > 0 ? (replica.next_offset - start) / whole_ : 1} aria-label={`Progress of partition ${partition}`} />
                      <span>
                        {whole(replica.lag ?? 0)} records left{left !== undefined && `, about ${roughly(left)}`}
                      </span>
                    </>
                  )}
                </li>
              );
            })}
          </ul>
        </>
      )}
    </section>
  );
}

function Log({ data }: { data: Cluster }) {
  const { log, partition_states } = data;
  const records = log.starts && partition_states.every(({ high_watermark }) => high_watermark !== null)
    ? partition_states.reduce((sum, { partition, high_watermark }) => sum + high_watermark! - log.starts![partition], 0)
    : undefined;
  const isCut = log.starts?.some((start) => start > 0);
  return (
    <section class="card">
      <h2>Log</h2>
      <p>
        {log.kind === "kafka" ? "In Kafka" : "In the data folder"}
        {records !== undefined && `, ${whole(records)} records`}. It keeps records{" "}
        {log.retention_ms === null ? "for all time" : `for ${formatDuration(log.retention_ms / 1000)}`}
        {log.retention_bytes !== null && `, at most ${bytes(log.retention_bytes)}${log.kind === "kafka" ? " of each partition" : ""}`}.{" "}
        {log.starts && (isCut ? "Its start has been cut off: the views cannot be rebuilt from it alone." : "It has everything from the start: the views can be rebuilt from it alone.")}
      </p>
    </section>
  );
}

/** Of `tabor run`: what each partition holds, with its digest. */
function Views() {
  const { data } = usePolled<{ partitions: OwnPartition[] }>("api/v1/status/partitions", DIGESTS_EVERY_MS, { digest: "1" });
  if (!data) return null;
  const sum = (of: (one: OwnPartition) => number) => data.partitions.reduce((total, one) => total + of(one), 0);
  return (
    <section class="card">
      <h2>Views</h2>
      <p class="muted">
        {whole(sum((one) => one.series))} series, {whole(sum((one) => one.samples))} samples, {bytes(sum((one) => one.bytes))} in segments. There is one replica,
        so digests have nothing to be compared with; <code>tabor replay</code> shows whether the log gives the same ones.
      </p>
      <div class="scroll" tabIndex={0} role="region" aria-label="Views">
        <table>
          <thead>
            <tr>
              <th scope="col">partition</th>
              {["series", "samples", "bytes"].map((name) => (
                <th scope="col" class="value" key={name}>
                  {name}
                </th>
              ))}
              <th scope="col">digest</th>
            </tr>
          </thead>
          <tbody>
            {data.partitions.map((one) => (
              <tr key={one.partition}>
                <th scope="row">{one.partition}</th>
                <td class="value">{whole(one.series)}</td>
                <td class="value">{whole(one.samples)}</td>
                <td class="value">{bytes(one.bytes)}</td>
                <td>
                  <code>{one.digest}</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Audit({ data }: { data: Cluster }) {
  const replicas = data.partition_states.flatMap((one) => one.replicas.map((replica) => ({ ...replica, partition: one.partition })));
  const compared = replicas.filter(({ digest }) => digest !== null).length;
  const differ = replicas.filter(({ digest }) => digest === "differs").map(({ partition, node }) => `partition ${partition} on ${node}`);
  return (
    <section class="card">
      <h2>Digests</h2>
      <p>
        {compared === 0
          ? "No replica has been compared yet."
          : differ.length
            ? `Different when they were compared last: ${differ.slice(0, 20).join(", ")}.`
            : `${whole(compared)} replicas were equal when they were compared last.`}{" "}
        Nodes compare their replicas by themselves (<code>--audit-every</code>); <code>tabor cluster verify</code> compares all of them now, and with{" "}
        <code>--repair</code> fetches those anew that differ from the majority.
      </p>
    </section>
  );
}
