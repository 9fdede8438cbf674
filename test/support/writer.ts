// A process that changes a directory in a tight loop until it is killed: node writer.ts KIND DIR PAUSE-MS.
// It says "ready" once it has written its first state.
import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

const BLOCKS = 64;
const BLOCK_BYTES = 16_384;
const APPENDED_MAX = 4000;

const sleeper = new Int32Array(new SharedArrayBuffer(4));

function pause(ms: number): void {
  if (ms > 0) Atomics.wait(sleeper, 0, 0, ms);
}

/** The whole of `whole` in its n-th state: many equal lines, whose number depends on n. */
function wholeState(n: number): string {
  return `state ${n}\n`.repeat(3000 + 100 * (n % 7));
}

/** Whether these bytes are one of the states of `whole`. */
export function isWholeState(bytes: Buffer): boolean {
  const [, n] = /^state ([0-9]+)\n/.exec(bytes.toString('latin1', 0, 40)) ?? [];
  return n !== undefined && bytes.toString('latin1') === wholeState(Number(n));
}

/** Whether these bytes are what `blocks` was at some instant: the first blocks of one state, the rest of the one before. */
export function isBlocksInstant(bytes: Buffer): boolean {
  if (bytes.length !== BLOCKS * BLOCK_BYTES) return false;
  const first = bytes.readUInt32LE(0);
  let older = false;
  for (let at = 0; at < bytes.length; at += 4) {
    const n = bytes.readUInt32LE(at);
    if (at % BLOCK_BYTES === 0) older ||= n !== first;
    if (n !== (older ? first - 1 : first)) return false;
  }
  return true;
}

/** Whether these bytes are what `log` was at some instant: its first lines, none of them cut. */
export function isLogInstant(bytes: Buffer): boolean {
  const lines = bytes.toString().split('\n');
  return lines.pop() === '' && lines.every((line, i) => line === `line ${i}`);
}

class Writer {
  readonly #dir: string;
  readonly #pauseMs: number;
  #n = 0;
  #appended = 0;
  #blocks: number | undefined;

  constructor(dir: string, pauseMs: number) {
    this.#dir = dir;
    this.#pauseMs = pauseMs;
  }

  #path(name: string): string {
    return join(this.#dir, name);
  }

  rename(): void {
    const temporary = this.#path('whole.tmp.1.2.3');
    writeFileSync(temporary, wholeState(this.#n));
    renameSync(temporary, this.#path('whole'));
  }

  blocks(): void {
    this.#blocks ??= openSync(this.#path('blocks'), 'w');
    const block = Buffer.alloc(BLOCK_BYTES);
    for (let at = 0; at < BLOCK_BYTES; at += 4) block.writeUInt32LE(this.#n, at);
    for (let i = 0; i < BLOCKS; i++) writeSync(this.#blocks, block, 0, BLOCK_BYTES, i * BLOCK_BYTES);
  }

  log(): void {
    if (this.#appended >= APPENDED_MAX) {
      truncateSync(this.#path('log'));
      this.#appended = 0;
    }
    for (let i = 0; i < 100; i++) appendFileSync(this.#path('log'), `line ${this.#appended++}\n`);
  }

  /** A name that is a file, a folder, a symlink and a FIFO by turns. */
  turn(): void {
    const path = this.#path('turning');
    rmSync(path, { recursive: true, force: true });
    const kind = this.#n % 4;
    if (kind === 0) writeFileSync(path, 'a file');
    else if (kind === 1) {
      mkdirSync(join(path, 'deeper'), { recursive: true });
      writeFileSync(join(path, 'deeper/file'), 'in a folder');
    } else if (kind === 2) symlinkSync('/etc/passwd', path);
    else execFileSync('mkfifo', [path]);
  }

  vanish(): void {
    for (let i = 0; i < 20; i++) {
      const path = this.#path(`v${i}`);
      if ((this.#n + i) % 2 === 0) rmSync(path, { force: true });
      else writeFileSync(path, `${this.#n}`.repeat(this.#n % 1000));
    }
  }

  /** A temporary file that only ever grows: no part of the graph, but somebody is at work. */
  flush(): void {
    appendFileSync(this.#path('kv.json.tmp.1.2.3'), 'x'.repeat(100));
  }

  storm(): void {
    this.rename();
    this.blocks();
    this.log();
    this.turn();
    this.vanish();
  }

  run(kind: string): void {
    const step = {
      rename: this.rename,
      blocks: this.blocks,
      log: this.log,
      flush: this.flush,
      storm: this.storm,
    }[kind];
    if (step === undefined) throw new Error(`there is no ${kind}`);
    for (;;) {
      step.call(this);
      if (this.#n++ === 0) writeSync(1, 'ready\n');
      pause(this.#pauseMs);
    }
  }

  close(): void {
    if (this.#blocks !== undefined) closeSync(this.#blocks);
  }
}

if (process.argv[1] === import.meta.filename) {
  const [, , kind = '', dir = '', pauseMs = '0'] = process.argv;
  const writer = new Writer(dir, Number(pauseMs));
  try {
    writer.run(kind);
  } finally {
    writer.close();
  }
}
