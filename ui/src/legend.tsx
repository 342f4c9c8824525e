// The legend: a button for each series; as many rows as a page can take, the rest on demand.
import { useMemo, useState } from "preact/hooks";
import { short } from "./format";
import { colourOf, commonLabels, selectorOf, type Columns, type Series } from "./series";

const ROWS = 100;

interface Props {
  series: Series[];
  columns: Columns;
  isShown: boolean[];
  isDark: boolean;
  onShown: (isShown: boolean[]) => void;
  onFocus: (index: number) => void;
}

function summary(column: (number | null)[]): { last?: number; low?: number; high?: number } {
  let low = Infinity;
  let high = -Infinity;
  let last: number | undefined;
  for (const value of column) {
    if (value === null) continue;
    last = value;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return last === undefined ? {} : { last, low, high };
}

export function Legend({ series, columns, isShown, isDark, onShown, onFocus }: Props) {
  const [filter, setFilter] = useState("");
  const [rows, setRows] = useState(ROWS);
  const common = useMemo(() => commonLabels(series), [series]);
  const names = useMemo(() => series.map(({ metric }) => selectorOf(metric, common)), [series, common]);
  const wanted = filter.toLowerCase();
  const found = names.flatMap((name, i) => (name.toLowerCase().includes(wanted) ? [i] : []));
  const toggle = (index: number, only: boolean) => {
    if (!only) onShown(isShown.map((show, i) => (i === index ? !show : show)));
    else if (isShown.every((show, i) => show === (i === index))) onShown(isShown.map(() => true));
    else onShown(isShown.map((_, i) => i === index));
  };
  return (
    <div class="legend">
      <div class="legend-head">
        {Object.keys(common).length > 0 && (
          <span class="muted">
            all: <code>{selectorOf(common)}</code>
          </span>
        )}
        <span class="spacer" />
        {series.length > 20 && (
          <input type="search" placeholder="filter series" aria-label="Filter the legend" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
        )}
        {series.length > 1 && (
          <>
            <button class="small" onClick={() => onShown(isShown.map((show, i) => show || found.includes(i)))}>
              show {filter ? "found" : "all"}
            </button>
            <button class="small" onClick={() => onShown(isShown.map((show, i) => show && !found.includes(i)))}>
              hide {filter ? "found" : "all"}
            </button>
          </>
        )}
      </div>
      <ul aria-label="Series; press to show or hide, with Shift to show one alone" onMouseLeave={() => onFocus(-1)}>
        {found.slice(0, rows).map((i) => {
          const { last, low, high } = summary(columns.columns[i]);
          return (
            <li key={i}>
              <button
                aria-pressed={isShown[i]}
                title={`${selectorOf(series[i].metric)}\nShift: this one alone`}
                onClick={(event) => toggle(i, event.shiftKey || event.ctrlKey || event.metaKey)}
                onMouseEnter={() => onFocus(i)}
                onFocus={() => onFocus(i)}
                onBlur={() => onFocus(-1)}
              >
                <span class="swatch" style={{ background: colourOf(i, isDark) }} />
                <code class="name">{names[i]}</code>
                {last !== undefined && (
                  <span class="values">
                    <span class="muted">
                      {short(low!)} … {short(high!)}
                    </span>{" "}
                    {short(last)}
                  </span>
                )}
              </button>
            </li>
          );
        })}
      </ul>
      {found.length > rows && (
        <button class="small" onClick={() => setRows(rows + 500)}>
          {found.length - rows} more
        </button>
      )}
    </div>
  );
}
