// What the user has chosen, kept in the browser: theme, time zone, queries of the past.
import { useEffect, useState } from "preact/hooks";

const listeners = new Set<() => void>();

function read(key: string): string {
  try {
    return localStorage.getItem(key) ?? "";
  } catch {
    return "";
  }
}

function write(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // A browser that keeps nothing still shows the page.
  }
  for (const listener of listeners) listener();
}

/** A value that components follow. */
function useStored(key: string): string {
  const [value, setValue] = useState(read(key));
  useEffect(() => {
    const follow = () => setValue(read(key));
    listeners.add(follow);
    return () => void listeners.delete(follow);
  }, [key]);
  return value;
}

export type Theme = "" | "light" | "dark";
const THEME = "tabor.theme";
const HISTORY = "tabor.history";
const MAX_HISTORY = 100;
const dark = matchMedia("(prefers-color-scheme: dark)");

export function applyTheme(): void {
  const theme = read(THEME);
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

export function setTheme(theme: Theme): void {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  write(THEME, theme);
}

/** Whether what is shown is dark, and what was chosen ('' follows the system). */
export function useTheme(): { isDark: boolean; theme: Theme } {
  const theme = useStored(THEME) as Theme;
  const [system, setSystem] = useState(dark.matches);
  useEffect(() => {
    const follow = () => setSystem(dark.matches);
    dark.addEventListener("change", follow);
    return () => dark.removeEventListener("change", follow);
  }, []);
  return { isDark: theme ? theme === "dark" : system, theme };
}

/** Expressions that were run, the latest first. */
export function history(): string[] {
  try {
    const found: unknown = JSON.parse(read(HISTORY) || "[]");
    return Array.isArray(found) ? found.filter((one): one is string => typeof one === "string") : [];
  } catch {
    return [];
  }
}

export function remember(expression: string): void {
  if (!expression.trim()) return;
  write(HISTORY, JSON.stringify([expression, ...history().filter((one) => one !== expression)].slice(0, MAX_HISTORY)));
}

export function forgetAll(): void {
  write(HISTORY, "[]");
}
