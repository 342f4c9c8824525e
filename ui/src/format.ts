// Numbers, times and durations as people read them.

const UNITS_MS: [string, number][] = [
  ["y", 365 * 86_400_000],
  ["w", 7 * 86_400_000],
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1000],
  ["ms", 1],
];

/** Seconds of a Prometheus duration such as 1h30m, or of a plain number; undefined if it is none. */
export function parseDuration(text: string): number | undefined {
  const trimmed = text.trim();
  if (/^\d+(\.\d+)?$/.test(trimmed)) return Number(trimmed) || undefined;
  if (!/^(\d+(y|w|d|h|ms|m|s))+$/.test(trimmed)) return undefined;
  let total = 0;
  for (const [, count, unit] of trimmed.matchAll(/(\d+)(ms|[ywdhms])/g)) {
    total += Number(count) * UNITS_MS.find(([name]) => name === unit)![1];
  }
  return total / 1000 || undefined;
}

/** Exact, as Prometheus writes it. */
export function formatDuration(seconds: number): string {
  let left = Math.round(seconds * 1000);
  if (left <= 0) return "0s";
  let text = "";
  for (const [unit, size] of UNITS_MS) {
    // Years and weeks only where they come out even, as in Prometheus.
    if (left >= size && (!"yw".includes(unit) || left % size === 0)) {
      text += `${Math.floor(left / size)}${unit}`;
      left %= size;
    }
  }
  return text;
}

/** About how long, in one or two units. */
export function roughly(seconds: number): string {
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];

/** A count in few characters: 12.3k. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  let size = Math.abs(value);
  let power = 0;
  while (size >= 999.5 && power < PREFIXES.length - 1) {
    size /= 1000;
    power += 1;
  }
  if (power === 0) return String(Number(value.toPrecision(4)));
  return `${value < 0 ? "-" : ""}${size >= 99.5 ? size.toFixed(0) : size >= 9.95 ? size.toFixed(1) : size.toFixed(2)}${PREFIXES[power]}`;
}

/** Values of an axis. */
export function axisValue(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(1).replace("e-", "e−");
  return size < 1000 ? String(Number(value.toPrecision(4))) : short(value);
}

export function bytes(count: number): string {
  if (count < 1000) return `${count} B`;
  return `${short(count).replace(/([kMGTPE])$/, " $1")}B`.replace("kB", "kB");
}

export function whole(count: number): string {
  return count.toLocaleString("en-US");
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

interface Moment {
  date: string;
  time: string;
  ms: number;
}

function moment(seconds: number, utc: boolean): Moment {
  const at = new Date(Math.round(seconds * 1000));
  return utc
    ? {
        date: `${at.getUTCFullYear()}-${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`,
        time: `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`,
        ms: at.getUTCMilliseconds(),
      }
    : {
        date: `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`,
        time: `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`,
        ms: at.getMilliseconds(),
      };
}

/** 2026-11-23 12:00:00, with milliseconds if there are any. */
export function formatTime(seconds: number, utc: boolean): string {
  const { date, time, ms } = moment(seconds, utc);
  return `${date} ${time}${ms ? `.${String(ms).padStart(3, "0")}` : ""}`;
}

/** For the ticks of an axis, `every` seconds apart: the date where a day begins. */
export function formatTick(seconds: number, every: number, utc: boolean): string {
  const { date, time, ms } = moment(seconds, utc);
  if (time === "00:00:00" && !ms) return date.slice(5);
  if (every < 1) return `${time.slice(3)}.${String(ms).padStart(3, "0")}`;
  return every < 60 ? time : time.slice(0, 5);
}

/** Seconds of a text such as 2026-11-23 12:00; undefined if it is none. */
export function parseTime(text: string, utc: boolean): number | undefined {
  const trimmed = text.trim();
  if (/^\d{9,10}(\.\d+)?$/.test(trimmed)) return Number(trimmed);
  const found = /^(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(Z|[+-]\d\d:\d\d)?)?$/.exec(trimmed);
  if (!found) return undefined;
  const [, date, time = "00:00", zone] = found;
  const at = Date.parse(`${date}T${time}${zone ?? (utc ? "Z" : "")}`);
  return Number.isNaN(at) ? undefined : at / 1000;
}
