// Requests to the server: credentials, tenant, Prometheus' envelope and errors.

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly type: string,
    message: string,
  ) {
    super(message);
  }
}

export interface Answer<T> {
  data: T;
  warnings: string[];
  infos: string[];
  /** Bytes of the body, decompressed. */
  size: number;
}

export type Parameters = Record<string, string | number | string[] | undefined>;

const TOKEN = "tabor.authorization";
const TENANT = "tabor.tenant";

/** The header `Authorization`, kept until the tab is closed. */
export const authorization = stored(TOKEN);
/** The header `X-Scope-OrgID`. */
export const tenant = stored(TENANT);

function stored(key: string) {
  return {
    get: () => sessionStorage.getItem(key) ?? "",
    set: (value: string) => (value ? sessionStorage.setItem(key, value) : sessionStorage.removeItem(key)),
  };
}

// Without the browser's own credentials it does not open a dialog of its own on a 401. A proxy in front that asks
// for them is told by its realm, or by its redirect to another site, which looks like a broken connection.
let credentials: RequestCredentials = "omit";
let askForCredentials: () => Promise<boolean> = () => Promise.resolve(false);

/** Say who asks the user for credentials after a 401; it answers whether there are new ones. */
export function onUnauthorized(ask: () => Promise<boolean>): void {
  askForCredentials = ask;
}

export function search(parameters: Parameters): URLSearchParams {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined && one !== "") found.append(name, String(one));
  }
  return found;
}

/** One request; paths are relative, so that the page works behind a proxy that adds a prefix. */
async function request(method: string, path: string, body: URLSearchParams | undefined, signal?: AbortSignal): Promise<Response> {
  for (;;) {
    const headers = new Headers();
    if (authorization.get()) headers.set("Authorization", authorization.get());
    if (tenant.get()) headers.set("X-Scope-OrgID", tenant.get());
    let response: Response;
    try {
      response = await fetch(path, { method, headers, credentials, body, signal });
    } catch (error) {
      if (signal?.aborted || credentials !== "omit") throw unreachable(error);
      credentials = "same-origin";
      continue;
    }
    if (response.status !== 401) return response;
    if (!(response.headers.get("WWW-Authenticate") ?? "").includes('realm="tabor"') && credentials === "omit") {
      credentials = "same-origin";
      continue;
    }
    if (!(await askForCredentials())) return response;
  }
}

function unreachable(error: unknown): Error {
  if (error instanceof DOMException && error.name === "AbortError") return error;
  return new ApiError(0, "unreachable", "The server cannot be reached.");
}

async function answered<T>(response: Response): Promise<Answer<T>> {
  const text = await response.text().catch((error: unknown) => {
    throw unreachable(error);
  });
  let envelope: { status?: string; data?: T; error?: string; errorType?: string; warnings?: string[]; infos?: string[] };
  try {
    envelope = text ? JSON.parse(text) : { status: "success" };
  } catch {
    throw new ApiError(response.status, "bad_answer", `HTTP ${response.status}: ${text.slice(0, 200)}`);
  }
  if (!response.ok || envelope.status !== "success") {
    throw new ApiError(response.status, envelope.errorType ?? "", envelope.error ?? `HTTP ${response.status}`);
  }
  return { data: envelope.data as T, warnings: envelope.warnings ?? [], infos: envelope.infos ?? [], size: text.length };
}

export async function get<T>(path: string, parameters: Parameters = {}, signal?: AbortSignal): Promise<Answer<T>> {
  const found = search(parameters).toString();
  return answered(await request("GET", found ? `${path}?${found}` : path, undefined, signal));
}

/** A form, for parameters that may be longer than a URL. */
export async function post<T>(path: string, parameters: Parameters, signal?: AbortSignal): Promise<Answer<T>> {
  return answered(await request("POST", path, search(parameters), signal));
}

export async function remove(path: string): Promise<void> {
  await answered(await request("DELETE", path, undefined));
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
