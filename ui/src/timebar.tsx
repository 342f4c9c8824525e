// Which time is shown: range, end, step, how often it is asked anew.
import { useEffect, useState } from "preact/hooks";
import { formatDuration, formatTime, parseDuration, parseTime } from "./format";
import type { QueryState } from "./location";

const RANGES = ["5m", "15m", "1h", "3h", "6h", "12h", "1d", "2d", "7d", "14d", "30d", "90d", "1y"];
const REFRESHES = ["5s", "10s", "30s", "1m", "5m"];

interface Props {
  state: QueryState;
  /** The end as it was last run, and the step that was chosen. */
  end: number;
  step: number;
  utc: boolean;
  onChange: (change: Partial<QueryState>) => void;
}

/** A text field that takes effect with Enter, or when it is left, if it can be read. */
function Field(props: {
  label: string;
  value: string;
  placeholder: string;
  width: string;
  parse: (text: string) => unknown;
  list?: string;
  onText: (text: string) => void;
}) {
  const [text, setText] = useState(props.value);
  useEffect(() => setText(props.value), [props.value]);
  const isWrong = text.trim() !== "" && props.parse(text) === undefined;
  const commit = () => {
    if (!isWrong && text.trim() !== props.value) props.onText(text.trim());
  };
  return (
    <input
      value={text}
      aria-label={props.label}
      title={props.label}
      placeholder={props.placeholder}
      aria-invalid={isWrong}
      list={props.list}
      style={{ width: props.width }}
      onInput={(event) => setText(event.currentTarget.value)}
      onKeyDown={(event) => event.key === "Enter" && commit()}
      onBlur={commit}
    />
  );
}

export function TimeBar({ state, end, step, utc, onChange }: Props) {
  const move = (part: number) => {
    const moved = end + part * state.range;
    onChange({ end: moved >= Date.now() / 1000 ? undefined : Math.round(moved) });
  };
  const scale = (factor: number) => {
    const range = Math.max(1, Math.round(state.range * factor));
    const middle = end - state.range / 2;
    const next = middle + range / 2;
    onChange({ range, end: next >= Date.now() / 1000 ? undefined : Math.round(next) });
  };
  return (
    <div class="timebar" role="group" aria-label="Time">
      <span class="joined">
        <button class="icon" aria-label="Half the range" title="Half the range" onClick={() => scale(0.5)}>
          −
        </button>
        <Field
          label="Range, such as 1h30m"
          value={formatDuration(state.range)}
          placeholder="1h"
          width="5.2em"
          list="ranges"
          parse={parseDuration}
          onText={(text) => onChange({ range: parseDuration(text) ?? state.range })}
        />
        <datalist id="ranges">
          {RANGES.map((range) => (
            <option key={range} value={range} />
          ))}
        </datalist>
        <button class="icon" aria-label="Twice the range" title="Twice the range" onClick={() => scale(2)}>
          +
        </button>
      </span>
      <span class="joined">
        <button class="icon" aria-label="Earlier" title="Earlier" onClick={() => move(-0.5)}>
          ‹
        </button>
        <Field
          label={`End, ${utc ? "UTC" : "local time"}; empty for now`}
          value={state.end === undefined ? "" : formatTime(state.end, utc)}
          placeholder="until now"
          width="12.5em"
          parse={(text) => parseTime(text, utc)}
          onText={(text) => onChange({ end: text ? parseTime(text, utc) : undefined })}
        />
        {state.end !== undefined && (
          <button class="icon" aria-label="Until now" title="Until now" onClick={() => onChange({ end: undefined })}>
            ×
          </button>
        )}
        <button class="icon" aria-label="Later" title="Later" onClick={() => move(0.5)}>
          ›
        </button>
      </span>
      <Field
        label="Step between points; empty to have it chosen"
        value={state.step === undefined ? "" : formatDuration(state.step)}
        placeholder={`step ${formatDuration(step)}`}
        width="7em"
        parse={parseDuration}
        onText={(text) => onChange({ step: text ? parseDuration(text) : undefined })}
      />
      <select
        aria-label="Run again"
        title="Run again"
        value={state.refresh ? formatDuration(state.refresh) : ""}
        onChange={(event) => onChange({ refresh: parseDuration(event.currentTarget.value) ?? 0 })}
      >
        <option value="">refresh: off</option>
        {REFRESHES.map((every) => (
          <option key={every} value={every}>
            every {every}
          </option>
        ))}
      </select>
    </div>
  );
}
