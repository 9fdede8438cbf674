import type { Writable } from 'node:stream';

/** Most bytes that wait for a slow reader; further lines are lost. */
const WAITING_BYTES_MAX = 1 << 20;

/** Ignores failed writes to a stream: they neither throw nor end the process. */
export function ignoreWriteErrors(stream: Writable): void {
  // Without a listener a full disk or a closed pipe would be an uncaught exception.
  stream.on('error', () => {});
}

/** Writes lines to a stream, and counts those that are lost instead of failing or waiting. */
export class LineSink {
  readonly #stream: Writable;
  readonly #lostText: (lines: number) => string;
  #lost = 0;

  /** `lostText` returns the line that reports lost lines, once lines can be written again. */
  constructor(stream: Writable, lostText: (lines: number) => string) {
    this.#stream = stream;
    this.#lostText = lostText;
    ignoreWriteErrors(stream);
  }

  /** Writes a line, which ends with a newline. */
  write(line: string): void {
    if (this.#stream.writableLength >= WAITING_BYTES_MAX) {
      this.#lost += 1;
      return;
    }
    const lost = this.#lost;
    this.#lost = 0;
    if (lost > 0) this.#send(this.#lostText(lost), lost);
    this.#send(line, 1);
  }

  /** Writes a text that stands for some lines, which are lost if it cannot be written. */
  #send(text: string, lines: number): void {
    const lose = () => {
      this.#lost += lines;
    };
    try {
      this.#stream.write(text, (error) => {
        if (error) lose();
      });
    } catch {
      // Some kinds of standard streams fail at once.
      lose();
    }
  }
}
