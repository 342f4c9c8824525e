// A chart of series over time, or a heat map: uPlot, with a tooltip of our own that stays quick with 1,000 series.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { axisValue, formatTick, formatTime, short } from "./format";
import { drawHeat, type Heat } from "./heat";
import { colourOf, stacked, type Columns } from "./series";

const FEW_SERIES = 50;
const HEIGHT = 290;
const SYNC = uPlot.sync("tabor");

interface Props {
  label: string;
  columns: Columns;
  names: string[];
  isShown: boolean[];
  isStacked: boolean;
  heat?: Heat;
  isDark: boolean;
  utc: boolean;
  /** Series to bring out, or -1. */
  focused: number;
  onZoom: (start: number, end: number) => void;
}

function cssColour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function withAlpha(colour: string, alpha: number): string {
  return colour.startsWith("#")
    ? colour + Math.round(alpha * 255).toString(16).padStart(2, "0")
    : colour.replace(")", ` / ${alpha})`);
}

export function Chart(props: Props) {
  const host = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | undefined>(undefined);
  const { columns, isShown, isStacked, heat, isDark, utc, focused } = props;
  const latest = useRef(props);
  latest.current = props;

  useEffect(() => {
    const element = host.current!;
    const made = create(element, latest);
    chart.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      chart.current = undefined;
    };
    // Of a stack the lines above change with one that is switched off.
  }, [columns, heat, isStacked, isDark, utc, isStacked && isShown.join()]);

  useEffect(() => {
    const made = chart.current;
    if (!made || isStacked || heat) return;
    made.batch(() => {
      isShown.forEach((show, i) => {
        if (made.series[i + 1].show !== show) made.setSeries(i + 1, { show });
      });
    });
  }, [isShown]);

  useEffect(() => {
    const made = chart.current;
    if (made && !heat) made.setSeries(focused < 0 ? null : focused + 1, { focus: true });
  }, [focused]);

  const onKeyDown = (event: KeyboardEvent) => {
    const made = chart.current;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!made || by === undefined) return;
    event.preventDefault();
    const times = columns.times;
    const at = Math.min(times.length - 1, Math.max(0, (made.cursor.idx ?? (by > 0 ? -1 : times.length)) + by));
    // Stay at the height of the line that was shown, which is where the next value is looked for.
    const top = made.cursor.top !== undefined && made.cursor.top >= 0 ? made.cursor.top : made.over.clientHeight / 2;
    made.over.dataset.keyboard = "1";
    made.setCursor({ left: made.valToPos(times[at], "x"), top });
  };

  return (
    <div
      class="chart"
      ref={host}
      tabIndex={0}
      role="img"
      aria-label={`${props.label}. Left and right move the cursor; the table has all values.`}
      onKeyDown={onKeyDown}
    />
  );
}

function create(host: HTMLDivElement, latest: { current: Props }): uPlot {
  const { columns, names, isShown, isStacked, heat, isDark, utc } = latest.current;
  const shown = columns.columns.map((_, i) => isShown[i] ?? true);
  const data = isStacked ? stacked(columns.columns, shown) : columns.columns;
  const grid = cssColour("--grid");
  const axis = { stroke: cssColour("--muted"), grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "12px system-ui, sans-serif" };
  const few = names.length <= FEW_SERIES;
  const series: uPlot.Series[] = heat
    ? [{}, { show: true, stroke: "transparent", points: { show: false } }]
    : [
        {},
        ...names.map((name, i): uPlot.Series => {
          const colour = colourOf(i, isDark);
          return {
            label: name,
            show: shown[i],
            stroke: colour,
            width: few ? 1.5 : 1,
            points: few ? { size: 4 } : { show: false },
            fill: isStacked && i === shown.indexOf(true) ? withAlpha(colour, 0.35) : undefined,
          };
        }),
      ];
  const times = columns.times;
  const options: uPlot.Options = {
    width: host.clientWidth,
    height: HEIGHT,
    padding: [12, 12, 0, 4],
    series,
    bands: isStacked ? bandsOf(shown, isDark) : [],
    legend: { show: false },
    focus: { alpha: 0.15 },
    cursor: {
      points: { show: false },
      drag: { x: true, y: false, setScale: false },
      sync: { key: SYNC.key, scales: ["x", null] },
    },
    tzDate: utc ? (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC") : (at) => new Date(at * 1000),
    scales: {
      x: { time: true, range: () => [times[0], times[times.length - 1] > times[0] ? times[times.length - 1] : times[0] + 1] },
      y: heat
        ? { distr: heat.isLog ? 3 : 1, log: 2, range: () => [heat.low, heat.high] }
        : { range: (_, low, high) => yRange(low, high, isStacked) },
    },
    axes: [
      { ...axis, values: (_, splits, __, ___, every) => splits.map((at) => formatTick(at, every, utc)), space: 70, size: 32 },
      { ...axis, values: (_, splits) => splits.map((value) => (value === null ? "" : axisValue(heat ? Number(value.toPrecision(2)) : value))), size: 62 },
    ],
    hooks: {
      setSelect: [
        (made) => {
          const { left, width } = made.select;
          if (width < 4) return;
          made.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          latest.current.onZoom(made.posToVal(left, "x"), made.posToVal(left + width, "x"));
        },
      ],
      drawAxes: heat ? [(made) => drawHeat(made, heat, isDark)] : [],
      setCursor: [(made) => showTip(made, tip, marker, latest.current, data)],
      ready: [(made) => made.over.append(marker)],
    },
  };
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  const marker = document.createElement("div");
  marker.className = "marker";
  marker.hidden = true;
  const rows = heat ? [times.map(() => null)] : data;
  const made = new uPlot(options, [times, ...rows] as uPlot.AlignedData, host);
  host.append(tip);
  const enter = () => (made.over.dataset.pointer = "1");
  const leave = () => {
    delete made.over.dataset.pointer;
    delete made.over.dataset.keyboard;
    tip.hidden = marker.hidden = true;
  };
  made.over.addEventListener("mouseenter", enter);
  made.over.addEventListener("mouseleave", leave);
  host.onblur = leave;
  return made;
}

/** Between a line and the next one below it that is shown. */
function bandsOf(shown: boolean[], isDark: boolean): uPlot.Band[] {
  const bands: uPlot.Band[] = [];
  let below = -1;
  shown.forEach((show, i) => {
    if (!show) return;
    if (below >= 0) bands.push({ series: [i + 1, below + 1], fill: withAlpha(colourOf(i, isDark), 0.35) });
    below = i;
  });
  return bands;
}

function yRange(low: number | null, high: number | null, isStacked: boolean): [number, number] {
  if (low === null || high === null) return [0, 1];
  if (isStacked) [low, high] = [Math.min(0, low), Math.max(0, high)];
  if (low === high) return low === 0 ? [0, 1] : [Math.min(0, low * 1.1), Math.max(0, high * 1.1)];
  const room = (high - low) * 0.05;
  // A line just above 0 is not shown as if it went below.
  return [low >= 0 && low - room < 0 ? 0 : low - room, high <= 0 && high + room > 0 ? 0 : high + room];
}

function showTip(made: uPlot, tip: HTMLElement, marker: HTMLElement, props: Props, data: Columns["columns"]): void {
  const { idx, left, top } = made.cursor;
  const isHere = made.over.dataset.pointer || made.over.dataset.keyboard;
  if (!isHere || idx === null || idx === undefined || left === undefined || top === undefined || left < 0) {
    tip.hidden = marker.hidden = true;
    return;
  }
  const lines = props.heat ? heatLines(made, props.heat, idx, top) : seriesLines(made, marker, props, data, idx, top);
  if (!lines) {
    tip.hidden = marker.hidden = true;
    return;
  }
  tip.replaceChildren(
    ...[formatTime(props.columns.times[idx], props.utc), ...lines].map((line, i) => {
      const row = document.createElement(i === 1 ? "b" : "div");
      row.textContent = line;
      return row;
    }),
  );
  tip.hidden = false;
  const x = made.over.offsetLeft + left;
  const isRight = left > made.over.clientWidth / 2;
  tip.style.left = isRight ? "" : `${x + 14}px`;
  tip.style.right = isRight ? `${made.root.clientWidth - x + 14}px` : "";
  tip.style.top = `${made.over.offsetTop + 8}px`;
}

function seriesLines(made: uPlot, marker: HTMLElement, props: Props, data: Columns["columns"], idx: number, top: number): string[] | undefined {
  const wanted = made.posToVal(top, "y");
  let nearest = -1;
  let distance = Infinity;
  for (let i = 0; i < data.length; i++) {
    const value = data[i][idx];
    if (value === null || props.isShown[i] === false) continue;
    const away = Math.abs(value - wanted);
    if (away < distance) [nearest, distance] = [i, away];
  }
  if (nearest < 0) return undefined;
  marker.hidden = false;
  marker.style.left = `${made.valToPos(props.columns.times[idx], "x")}px`;
  marker.style.top = `${made.valToPos(data[nearest][idx]!, "y")}px`;
  marker.style.background = colourOf(nearest, props.isDark);
  return [String(props.columns.columns[nearest][idx]), props.names[nearest]];
}

function heatLines(made: uPlot, heat: Heat, idx: number, top: number): string[] | undefined {
  const wanted = made.posToVal(top, "y");
  const cell = heat.cells[idx]?.find(({ low, high }) => low <= wanted && wanted < high);
  return cell ? [short(cell.count), `from ${axisValue(cell.low)} to ${axisValue(cell.high)}`] : undefined;
}
