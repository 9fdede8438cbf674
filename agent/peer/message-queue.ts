/** An error that ends a queue for its reader and its writers. */
interface Ended {
  readonly error: unknown;
}

/** Bytes that a queued message takes beside its content. */
// Without them, small messages without end would fill the memory while nobody reads.
const MESSAGE_BYTES = 256;

/** Messages of one side of a stream, in order: writers wait while too many bytes are queued. */
export class MessageQueue<T> implements AsyncIterable<T> {
  readonly #limitBytes: number;
  readonly #queued: { readonly message: T; readonly bytes: number }[] = [];
  #bytes = 0;
  #ended: Ended | undefined;
  #wakeReader: () => void = () => {};
  #wakeWriters: (() => void)[] = [];

  /** `limitBytes` is what may be queued before writers wait. */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** Queues a message of about `bytes` bytes. Resolves when more may be queued; rejects once the queue has ended. */
  async push(message: T, bytes = 0): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended.error ?? new Error('the stream has ended');
    this.#queued.push({ message, bytes: MESSAGE_BYTES + bytes });
    this.#bytes += MESSAGE_BYTES + bytes;
    this.#wakeReader();
    while (this.#bytes > this.#limitBytes && this.#ended === undefined)
      await new Promise<void>((resolve) => this.#wakeWriters.push(resolve));
  }

  /** Ends the queue: the reader gets what is queued, and then the error if there is one. */
  end(error?: unknown): void {
    this.#ended ??= { error };
    this.#wakeReader();
    this.#releaseWriters();
  }

  #releaseWriters(): void {
    for (const wake of this.#wakeWriters.splice(0)) wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    try {
      for (;;) {
        const next = this.#queued.shift();
        if (next !== undefined) {
          this.#bytes -= next.bytes;
          if (this.#bytes <= this.#limitBytes) this.#releaseWriters();
          yield next.message;
        } else if (this.#ended !== undefined) {
          if (this.#ended.error !== undefined) throw this.#ended.error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wakeReader = resolve;
          });
        }
      }
    } finally {
      // A reader that leaves must not leave writers behind.
      this.end();
    }
  }
}
