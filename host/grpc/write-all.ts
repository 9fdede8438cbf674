/** The side of a stream that messages are written to. */
export interface MessageSink<Message> {
  write(message: Message): boolean;
  once(event: 'drain', listener: () => void): unknown;
  off(event: 'drain', listener: () => void): unknown;
}

/** Writes all messages, no faster than the other end reads them. Rejects when the signal aborts. */
export async function writeAll<Message>(
  sink: MessageSink<Message>,
  messages: AsyncIterable<Message>,
  signal: AbortSignal,
): Promise<void> {
  for await (const message of messages) {
    signal.throwIfAborted();
    if (!sink.write(message)) await drained(sink, signal);
  }
}

/** Resolves when a stream takes more. Rejects when the signal aborts. */
function drained(sink: Pick<MessageSink<never>, 'once' | 'off'>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = () => {
      signal.removeEventListener('abort', aborted);
      resolve();
    };
    const aborted = () => {
      sink.off('drain', done);
      reject(signal.reason as Error);
    };
    if (signal.aborted) return aborted();
    sink.once('drain', done);
    signal.addEventListener('abort', aborted, { once: true });
  });
}
