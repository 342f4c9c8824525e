// Results of queries as columns for charts and legends.

export type Labels = Record<string, string>;
export type Sample = [number, string];
/** Bucket of a native histogram: which bounds belong to it, its bounds, its count. */
export type Bucket = [number, string, string, string];
export interface Histogram {
  count: string;
  sum: string;
  buckets?: Bucket[];
}

export interface Series {
  metric: Labels;
  values?: Sample[];
  value?: Sample;
  histograms?: [number, Histogram][];
  histogram?: [number, Histogram];
}

export interface Statistics {
  timings: { execTotalTime: number; execQueueTime: number };
  samples: { totalQueryableSamples: number; peakSamples: number };
  tabor: {
    seriesRead: number;
    samplesRead: number;
    partitions: number;
    partitionsMissing: number;
    nodesAsked: number;
    bytesReceived: number;
    bytesRead: number;
    stages: Record<string, number>;
  };
}

export type Result =
  | { resultType: "matrix" | "vector"; result: Series[]; stats?: Statistics }
  | { resultType: "scalar" | "string"; result: Sample; stats?: Statistics };

export function numberOf(text: string): number {
  return text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text);
}

function quoted(text: string): string {
  return JSON.stringify(text);
}

const IDENTIFIER = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const METRIC = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;

/** As a selector; labels that all have may be left out. */
export function selectorOf(labels: Labels, without: Labels = {}): string {
  const name = labels.__name__;
  const hasPlainName = name !== undefined && METRIC.test(name);
  const parts = Object.entries(labels)
    .filter(([label]) => !(label in without) && !(label === "__name__" && hasPlainName))
    .map(([label, value]) => `${IDENTIFIER.test(label) ? label : quoted(label)}=${quoted(value)}`);
  const shownName = hasPlainName && !("__name__" in without) ? name : "";
  return parts.length || !shownName ? `${shownName}{${parts.join(", ")}}` : shownName;
}

/** Labels that all series have with one value; none if there is one series only. */
export function commonLabels(series: Series[]): Labels {
  if (series.length < 2) return {};
  const common = { ...series[0].metric };
  for (const { metric } of series) {
    for (const label in common) if (metric[label] !== common[label]) delete common[label];
  }
  return common;
}

/** A short name for a series in addresses (FNV-1a). */
export function hashOf(labels: Labels): string {
  let hash = 0x811c9dc5;
  for (const character of selectorOf(labels)) {
    hash = Math.imul(hash ^ character.codePointAt(0)!, 0x01000193) >>> 0;
  }
  return hash.toString(36);
}

export type Column = (number | null)[];

export interface Columns {
  /** Unix seconds. */
  times: number[];
  columns: Column[];
}

/** Values on the steps of a query; what is missing, NaN or infinite is a gap. */
export function columnsOf(series: Series[], start: number, end: number, step: number): Columns {
  const length = Math.floor((end - start) / step + 1e-6) + 1;
  const times = Array.from({ length }, (_, i) => start + i * step);
  const columns = series.map(({ values, histograms }) => {
    const column: Column = new Array<number | null>(length).fill(null);
    for (const [at, text] of values ?? []) {
      const value = Number(text);
      if (Number.isFinite(value)) column[Math.round((at - start) / step)] = value;
    }
    // A native histogram in a chart of lines is its mean, as the table says.
    for (const [at, histogram] of histograms ?? []) {
      const value = Number(histogram.sum) / Number(histogram.count);
      if (Number.isFinite(value)) column[Math.round((at - start) / step)] = value;
    }
    return column;
  });
  return { times, columns };
}

/** Columns on top of one another; gaps count as nothing where others are. Hidden ones are left as they are. */
export function stacked(columns: Column[], isShown: boolean[]): Column[] {
  const length = columns[0]?.length ?? 0;
  const sums = new Array<number>(length).fill(0);
  const isGap = sums.map((_, at) => columns.every((column, i) => !isShown[i] || column[at] === null));
  return columns.map((column, i) =>
    isShown[i]
      ? column.map((value, at) => {
          sums[at] += value ?? 0;
          return isGap[at] ? null : sums[at];
        })
      : column,
  );
}

/** Colours that differ as far as possible, by position; the first ones are chosen by hand. */
const LIGHT = ["#15803d", "#1d4ed8", "#c2410c", "#7e22ce", "#0e7490", "#be123c", "#a16207", "#4338ca", "#3f6212", "#9d174d"];
const DARK = ["#4ade80", "#60a5fa", "#fb923c", "#c084fc", "#22d3ee", "#fb7185", "#facc15", "#a5b4fc", "#a3e635", "#f472b6"];

export function colourOf(index: number, isDark: boolean): string {
  const palette = isDark ? DARK : LIGHT;
  if (index < palette.length) return palette[index];
  return `hsl(${Math.round((index * 137.508) % 360)} ${isDark ? "70% 66%" : "65% 38%"})`;
}
