// Builds the page: src/ -> ../tabor/page/static/, or the folder given as argument. The same source gives the
// same files, except that another zlib may compress them in other words.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "../tabor/page/static");
const result = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx" },
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  outdir: "out",
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  logLevel: "warning",
});

rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });

function ship(name, content) {
  writeFileSync(join(target, `${name}.gz`), gzipSync(content, { level: 9 }));
}

// Names carry a hash of the content, so that browsers may keep the files for ever.
function hashed(extension) {
  const content = result.outputFiles.find((file) => file.path.endsWith(extension)).contents;
  const name = `app-${createHash("sha256").update(content).digest("hex").slice(0, 12)}${extension}`;
  ship(name, content);
  return name;
}

const names = { "app.js": hashed(".js"), "app.css": hashed(".css") };
const html = readFileSync(join(here, "src/index.html"), "utf8").replace(/static\/(app\.\w+)/g, (_, name) => `static/${names[name]}`);
ship("index.html", html);
ship("icon.svg", readFileSync(join(here, "src/icon.svg")));

// The licences of what was bundled want their notices to come along.
const packages = new Set(Object.keys(result.metafile.inputs).flatMap((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []));
const notices = [...packages].sort().map((name) => {
  const folder = join(here, "node_modules", name);
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  return `${name} ${version}, ${license}\n\n${file ? readFileSync(join(folder, file), "utf8").trim() : "see https://spdx.org/licenses/"}\n`;
});
ship("licences.txt", `The page holds these packages.\n\n${notices.join(`\n${"-".repeat(72)}\n\n`)}`);
