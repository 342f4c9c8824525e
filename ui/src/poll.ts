// What the server says, asked for again and again while the page is looked at.
import { useEffect, useState } from "preact/hooks";
import { get, isAbort, textOf, type Parameters } from "./api";

export interface Polled<T> {
  data?: T;
  /** The answer before, to see what has changed since. */
  before?: T;
  error: string;
  /** Ask now. */
  again: () => void;
}

/** every: ms; 0 to ask once. */
export function usePolled<T>(path: string, every: number, parameters: Parameters = {}): Polled<T> {
  const [state, setState] = useState<{ data?: T; before?: T; error: string }>({ error: "" });
  const [round, setRound] = useState(0);
  const key = JSON.stringify(parameters);
  useEffect(() => {
    const controller = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const ask = async () => {
      if (!document.hidden) {
        try {
          const { data } = await get<T>(path, parameters, controller.signal);
          setState((old) => ({ data, before: old.data, error: "" }));
        } catch (error) {
          if (isAbort(error)) return;
          setState((old) => ({ ...old, error: textOf(error) }));
        }
      }
      if (every && !controller.signal.aborted) timer = setTimeout(() => void ask(), every);
    };
    void ask();
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [path, every, key, round]);
  return { ...state, again: () => setRound((n) => n + 1) };
}
