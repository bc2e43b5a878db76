// Puts a Brotli and a gzip copy beside every built file, and refuses a page that has grown too large (ui.md, section 1).
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';

const ENTRY_BYTES = 40 * 1024;
const ALL_BYTES = 100 * 1024;

const files = (folder) =>
  readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });

let entry = 0;
let all = 0;
for (const path of files('dist').filter((path) => !/\.(br|gz)$/.test(path))) {
  const bytes = readFileSync(path);
  const packed = gzipSync(bytes, { level: 9 });
  writeFileSync(`${path}.gz`, packed);
  writeFileSync(`${path}.br`, brotliCompressSync(bytes));
  if (/\.(js|css)$/.test(path)) {
    all += packed.length;
    if (/index-/.test(path)) entry += packed.length;
  }
}
console.log(`entry ${(entry / 1024).toFixed(1)} KB, everything ${(all / 1024).toFixed(1)} KB (gzip)`);
if (entry > ENTRY_BYTES || all > ALL_BYTES) {
  console.error(`too large: at most ${ENTRY_BYTES / 1024} KB for the entry and ${ALL_BYTES / 1024} KB in all`);
  process.exit(1);
}
