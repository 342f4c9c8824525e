// Results as a table: samples of an instant query, or of a range.
import { useState } from "preact/hooks";
import { formatTime, whole } from "./format";
import { selectorOf, type Histogram, type Result, type Series } from "./series";

const ROWS = 200;

export function ResultTable({ result, utc }: { result: Result; utc: boolean }) {
  const [rows, setRows] = useState(ROWS);
  const [order, setOrder] = useState(0);
  if (result.resultType === "scalar" || result.resultType === "string") {
    return (
      <table class="result">
        <caption class="hidden">Result</caption>
        <tbody>
          <tr>
            <th scope="row">{result.resultType}</th>
            <td class="value">{result.result[1]}</td>
          </tr>
        </tbody>
      </table>
    );
  }
  const series = result.result as Series[];
  if (!series.length) return <p class="empty">No series match.</p>;
  const shown = order ? [...series].sort((one, other) => order * (valueOf(one) - valueOf(other))) : series;
  const next = order === 0 ? -1 : order === -1 ? 1 : 0;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Result">
      <table class="result">
        <caption class="hidden">{whole(series.length)} series</caption>
        <thead>
          <tr>
            <th scope="col">series</th>
            <th scope="col" class="value" aria-sort={order === 0 ? "none" : order > 0 ? "ascending" : "descending"}>
              <button class="plain" onClick={() => setOrder(next)}>
                value <span aria-hidden="true">{order === 0 ? "↕" : order > 0 ? "↑" : "↓"}</span>
              </button>
            </th>
          </tr>
        </thead>
        <tbody>
          {shown.slice(0, rows).map((one, i) => (
            <tr key={i}>
              <td>
                <code>{selectorOf(one.metric)}</code>
              </td>
              <td class="value">
                <Values series={one} utc={utc} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {series.length > rows && (
        <button class="small" onClick={() => setRows(rows + 1000)}>
          {whole(series.length - rows)} more
        </button>
      )}
    </div>
  );
}

function valueOf(series: Series): number {
  const value = Number(series.value?.[1]);
  return Number.isNaN(value) ? -Infinity : value;
}

function Values({ series, utc }: { series: Series; utc: boolean }) {
  if (series.value) return <>{series.value[1]}</>;
  if (series.histogram) return <HistogramValue histogram={series.histogram[1]} />;
  const samples = [
    ...(series.values ?? []).map(([at, value]) => [at, value] as const),
    ...(series.histograms ?? []).map(([at, { count, sum }]) => [at, `count ${count}, sum ${sum}`] as const),
  ].sort(([one], [other]) => one - other);
  return (
    <>
      {samples.slice(0, 1000).map(([at, value]) => (
        <div key={at}>
          {value} <span class="muted">@ {formatTime(at, utc)}</span>
        </div>
      ))}
      {samples.length > 1000 && <div class="muted">{whole(samples.length - 1000)} more</div>}
    </>
  );
}

function HistogramValue({ histogram }: { histogram: Histogram }) {
  const most = Math.max(...(histogram.buckets ?? []).map(([, , , count]) => Number(count)), 1e-300);
  return (
    <details>
      <summary>
        count {histogram.count}, sum {histogram.sum}
      </summary>
      <table class="buckets">
        <tbody>
          {(histogram.buckets ?? []).map(([, low, high, count]) => (
            <tr key={low}>
              <th scope="row">
                {low} … {high}
              </th>
              <td>
                <meter min={0} max={1} value={Number(count) / most} aria-label={`share of ${low} to ${high}`} />
              </td>
              <td class="value">{count}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
