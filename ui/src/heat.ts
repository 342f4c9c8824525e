// Heat maps: counts by time and bucket, of native histograms and of classic ones (series with the label `le`).
import type uPlot from "uplot";
import { numberOf, type Series } from "./series";

export interface Cell {
  low: number;
  high: number;
  count: number;
}

export interface Heat {
  times: number[];
  /** One list for each time. */
  cells: Cell[][];
  low: number;
  high: number;
  max: number;
  isLog: boolean;
}

/** Several histograms are added up. Undefined if the series are none. */
export function heatOf(series: Series[], start: number, end: number, step: number): Heat | undefined {
  const length = Math.floor((end - start) / step + 1e-6) + 1;
  const times = Array.from({ length }, (_, i) => start + i * step);
  const sums = times.map(() => new Map<string, Cell>());
  const add = (at: number, low: number, high: number, count: number) => {
    const here = sums[Math.round((at - start) / step)];
    if (!here || !(count > 0)) return;
    const key = `${low} ${high}`;
    const known = here.get(key);
    if (known) known.count += count;
    else here.set(key, { low, high, count });
  };
  for (const { histograms } of series) {
    for (const [at, { buckets }] of histograms ?? []) {
      for (const [, low, high, count] of buckets ?? []) add(at, numberOf(low), numberOf(high), Number(count));
    }
  }
  for (const group of classic(series)) {
    let below: Map<number, number> = new Map();
    let low = 0;
    for (const [bound, values] of group) {
      const here = new Map<number, number>();
      for (const [at, text] of values) {
        const count = Number(text);
        here.set(at, count);
        add(at, low, bound, count - (below.get(at) ?? 0));
      }
      below = here;
      low = bound;
    }
  }
  return summary(times, sums.map((cells) => [...cells.values()]));
}

/** Series of one classic histogram each, by bound, ascending. */
function classic(series: Series[]): [number, [number, string][]][][] {
  const groups = new Map<string, [number, [number, string][]][]>();
  for (const { metric, values } of series) {
    if (metric.le === undefined || !values) continue;
    const { le, ...others } = metric;
    const key = JSON.stringify(Object.entries(others).sort());
    groups.set(key, [...(groups.get(key) ?? []), [numberOf(le), values]]);
  }
  return [...groups.values()].map((group) => group.sort(([one], [other]) => one - other));
}

function summary(times: number[], cells: Cell[][]): Heat | undefined {
  const all = cells.flat();
  if (!all.length) return undefined;
  const bounds = all.flatMap(({ low, high }) => [low, high]).filter(Number.isFinite);
  const isLog = bounds.every((bound) => bound >= 0) && bounds.some((bound) => bound > 0);
  const usable = isLog ? bounds.filter((bound) => bound > 0) : bounds;
  let low = Math.min(...usableOf(usable));
  let high = Math.max(...usableOf(usable));
  const opensUp = all.some((cell) => cell.high === Infinity);
  const opensDown = all.some((cell) => cell.low === -Infinity || (isLog && cell.low === 0));
  if (opensUp || low === high) high = isLog ? high * 2 : high + 1;
  if (opensDown) low = isLog ? low / 2 : low - 1;
  for (const cell of all) {
    cell.low = Math.max(cell.low, low);
    cell.high = Math.min(cell.high, high);
  }
  return { times, cells, low, high, max: all.reduce((most, { count }) => Math.max(most, count), 0), isLog };
}

/** Few numbers, so that they fit into a call's arguments. */
function usableOf(bounds: number[]): number[] {
  return [...new Set(bounds)].slice(0, 10_000);
}

/** Fills the cells: the more of a time's largest count, the stronger. */
export function drawHeat(chart: uPlot, heat: Heat, isDark: boolean): void {
  const { ctx } = chart;
  const step = heat.times.length > 1 ? heat.times[1] - heat.times[0] : 60;
  const ramp = rampOf(isDark);
  ctx.save();
  ctx.beginPath();
  ctx.rect(chart.bbox.left, chart.bbox.top, chart.bbox.width, chart.bbox.height);
  ctx.clip();
  heat.times.forEach((at, i) => {
    const left = Math.floor(chart.valToPos(at - step / 2, "x", true));
    const width = Math.max(1, Math.ceil(chart.valToPos(at + step / 2, "x", true)) - left);
    for (const { low, high, count } of heat.cells[i]) {
      const top = Math.floor(chart.valToPos(high, "y", true));
      const height = Math.max(1, Math.ceil(chart.valToPos(low, "y", true)) - top);
      // Counts differ by orders of magnitude; the root keeps small ones visible.
      ctx.fillStyle = ramp[Math.min(ramp.length - 1, Math.floor(Math.sqrt(count / heat.max) * ramp.length))];
      ctx.fillRect(left, top, width, height);
    }
  });
  ctx.restore();
}

export function rampOf(isDark: boolean): string[] {
  return Array.from({ length: 32 }, (_, i) => {
    const part = (i + 1) / 32;
    return isDark
      ? `hsl(${212 - 36 * part} ${55 + 35 * part}% ${17 + 65 * part}%)`
      : `hsl(${176 + 48 * part} ${50 + 25 * part}% ${92 - 66 * part}%)`;
  });
}
